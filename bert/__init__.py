"""BERT training suite: two-phase pre-training, fine-tuning and serving in modern PyTorch."""

__version__ = "0.1.0"
