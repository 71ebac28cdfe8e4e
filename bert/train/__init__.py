"""What pre-training and fine-tuning share: the run, the trainer, precision, parallelism and meters."""
