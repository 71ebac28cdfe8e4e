"""The questions of a SQuAD file as padded batches, for --dataloader triton/dataloader.py of the commands here."""

from bert.deployment.questions import get_dataloader_fn  # noqa: F401  # what the commands look for
