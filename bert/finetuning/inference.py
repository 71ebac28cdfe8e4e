"""The flags that commands share which run a model and do not train it.

::

    with world(config.place()) as here:
        precision = config.number_format(here.device)
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch

from bert.config import flag
from bert.distributed import DistributedConfig
from bert.finetuning.start import ModelFiles
from bert.precision import Precision, PrecisionConfig


@dataclass
class InferenceConfig:
    init_checkpoint: str = flag(help="Checkpoint of the model, in any format that convert_checkpoint.py reads.")
    fp16: bool = flag(False, "Compute in fp16.")
    bf16: bool = flag(False, "Compute in bf16.")
    no_cuda: bool = flag(False, "Run on the CPU, as --device cpu does.")
    model: ModelFiles = field(default_factory=ModelFiles)
    distributed: DistributedConfig = field(default_factory=DistributedConfig)

    def place(self) -> DistributedConfig:
        """Return where to run."""
        return replace(self.distributed, device="cpu") if self.no_cuda else self.distributed

    def number_format(self, device: torch.device) -> Precision:
        """Return the number format to run in."""
        return Precision(PrecisionConfig(fp16=self.fp16, bf16=self.bf16), device)
