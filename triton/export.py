"""Export a trained model to a Triton model repository, once it has proved equal to the model that was trained.

    python triton/export.py --checkpoint results/SQuAD/pytorch_model.bin --task qa --output model_repository
    python triton/export.py --checkpoint results/SST-2/pytorch_model.bin --task classify --output model_repository

It writes an engine on token ids, which computes no padding, and a model in front of it that takes text. In a repository
that has them already they become the next version; a running server loads it after `kill -HUP` of serve.sh.
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from bert.config import run_command
from bert.serve.repository import ExportConfig, export


def main(config: ExportConfig) -> None:
    """Run the command."""
    export(config)


if __name__ == "__main__":
    run_command(main, ExportConfig)
