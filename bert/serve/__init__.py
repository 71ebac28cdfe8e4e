"""Serving: a trained model as an engine without padding, in a model repository, behind one public gateway.

``export`` writes what ``engine`` runs; ``repository`` lays it out for Triton Inference Server; the ``*_model`` modules
run inside the server; ``gateway`` stands in front of it.
"""
