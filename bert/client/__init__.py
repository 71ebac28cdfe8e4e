"""Asking a running server: single questions, whole files, their scores, and load."""
