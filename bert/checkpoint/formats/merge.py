"""Fold an adapter into the encoder where that gives the same function: then any format holds the model.

LHUC scales what a LayerNorm returns, which is to scale its weight and bias. The others have no place in a plain layer:
low_rank, pals and houlsby compute a GELU between their two products, and even without it low_rank adds a map of the
layer's input past both LayerNorms; the top kinds add layers.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from bert.checkpoint.adapter_files import ADAPTER_KEYS
from bert.checkpoint.formats.weights import Weights
from bert.errors import UsageError


def merge_adapter(weights: Weights) -> Weights:
    """Return the same model without adapters. Raises UsageError where there is none, or one that cannot be merged."""
    adapter, tensors = weights.config.adapter, dict(weights.tensors)
    if adapter is not None and adapter.kind != "lhuc":
        raise UsageError(f"--merge: {adapter.kind} has a non-linearity or layers of its own, expected lhuc or none")
    if "classifier.0.weight" in tensors:
        raise UsageError("--merge: the model has several tasks, expected one")
    for layer in range(weights.config.num_hidden_layers if adapter else 0):
        factor = 2 * torch.sigmoid(tensors.pop(f"bert.adapters.0.layers.{layer}.scale"))
        for part in ("weight", "bias"):
            name = f"bert.encoder.layer.{layer}.output.LayerNorm.{part}"
            tensors[name] = tensors[name] * factor
    config = replace(weights.config)
    vars(config).update({key: value for key, value in vars(weights.config).items() if key not in ADAPTER_KEYS})
    return replace(weights, tensors=tensors, config=config)
