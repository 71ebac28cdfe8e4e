"""Fine-tuning on a task of any kind: what it starts from, its training, and the model it leaves.

The entry points bring the task: sequences with labels, an objective, and what becomes of the predictions.
"""
