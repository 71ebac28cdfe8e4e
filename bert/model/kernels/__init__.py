"""Triton kernels for CUDA: attention, and the operations between matrix products."""
