"""Pre-training: phases, evaluation, and what surrounds the training loop."""
