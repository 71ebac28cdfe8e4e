"""Held-out metrics of pre-training: loss and accuracy of both tasks, and what guessing would reach."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from bert.batch import Batch
from bert.distributed import World, all_reduce_sum
from bert.model.objective import PreTrainingObjective
from bert.train.precision import Precision


def evaluate(
    objective: PreTrainingObjective, batches: Iterable[Batch], precision: Precision, world: World
) -> dict[str, float]:
    """Average over the held-out sequences of all ranks; ranks may have different numbers of batches.

    Returns eval_mlm_loss, eval_mlm_accuracy (per masked token), eval_nsp_loss, eval_nsp_accuracy (per sequence).
    """
    names = ("mlm_loss", "mlm_correct", "nsp_loss", "nsp_correct", "mlm_terms", "nsp_terms")
    sums = torch.zeros(len(names), dtype=torch.float64, device=world.device)
    objective.eval()
    for batch in batches:
        weights = batch.loss_weights()
        with precision.autocast():
            results = objective.evaluate(batch.to(world.device))
        results["mlm_terms"] = torch.tensor(weights["mlm_loss"])
        results["nsp_terms"] = torch.tensor(weights["nsp_loss"])
        sums += torch.stack([results[name].to(sums) for name in names])
    objective.train()
    all_reduce_sum(sums)
    total = dict(zip(names, sums.tolist(), strict=True))
    mlm_terms, nsp_terms = max(total["mlm_terms"], 1), max(total["nsp_terms"], 1)
    return {
        "eval_mlm_loss": total["mlm_loss"] / mlm_terms,
        "eval_mlm_accuracy": total["mlm_correct"] / mlm_terms,
        "eval_nsp_loss": total["nsp_loss"] / nsp_terms,
        "eval_nsp_accuracy": total["nsp_correct"] / nsp_terms,
    }


def unigram_accuracy(batches: Iterable[Batch], vocab_size: int, world: World) -> float:
    """Return the MLM accuracy of always guessing the most frequent masked token: the baseline to beat."""
    counts: Tensor = torch.zeros(vocab_size, dtype=torch.int64, device=world.device)
    for batch in batches:
        counts += torch.bincount(batch.masked_labels, minlength=vocab_size).to(world.device)
    all_reduce_sum(counts)
    return (counts.max() / counts.sum().clamp(min=1)).item()
