"""Fine-tuning of any task: training, prediction, and the files it leaves."""
