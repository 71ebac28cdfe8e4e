"""The question-answering model on padded batches, for --input-path triton/model.py of the commands here."""

from bert.deployment.padded import get_model, update_argparser  # noqa: F401  # what the commands look for
