"""What NVIDIA's Triton scripts do for BERT: export, inference into dump files, metrics, performance sweeps."""
