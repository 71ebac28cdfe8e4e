"""The tensors of a checkpoint as one BERT with its heads, checked against a configuration.

state = read_checkpoint("uncased_L-12_H-768_A-12/bert_model.ckpt")
weights, report = match_config(state, config, tokenizer, "--checkpoint bert_model.ckpt")
print(report)                                    # 205 tensors loaded; skipped: 414 of an optimizer
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from bert.checkpoint import LoadReport, match_weights, shorten
from bert.checkpoint.weights import with_rows
from bert.errors import UsageError
from bert.model.bert import BertModel, BertPreTrainedModel
from bert.model.config import BertConfig
from bert.model.heads import BertLMPredictionHead
from bert.model.names import DECODER, VOCABULARY_ROWS, canonical_names
from bert.tokenization import BertTokenizer

WORDS = "bert.embeddings.word_embeddings.weight"
POOLER = ("bert.pooler.dense.weight", "bert.pooler.dense.bias")
POOLED = frozenset({"cls.seq_relationship", "classifier"})  # heads on top of the pooler
HEADS = ("cls.predictions", "cls.seq_relationship", "qa_outputs", "classifier")
# Carried over from a checkpoint: which task the model was fine-tuned for, and the names of its labels.
FACTS = ("task", "labels", "tasks", "version_2_with_negative")


class BertWithHeads(BertPreTrainedModel):
    """An encoder with any of ``HEADS``, under the field's usual names; ``num_labels`` lists those of each task."""

    def __init__(
        self, config: BertConfig, heads: Collection[str], num_labels: int | Sequence[int] = 2, attention: str = "auto"
    ) -> None:
        super().__init__(config, attention)
        tasks = None if isinstance(num_labels, int) else [config.adapter] * len(num_labels)
        self.bert = BertModel(config, attention, tasks)
        if any(head.startswith("cls.") for head in heads):
            self.cls = nn.Module()
        if "cls.predictions" in heads:
            self.cls.predictions = BertLMPredictionHead(config, self.bert.embeddings.word_embeddings)
        if "cls.seq_relationship" in heads:
            self.cls.seq_relationship = nn.Linear(config.hidden_size, 2)
        if "qa_outputs" in heads:
            self.qa_outputs = nn.Linear(config.hidden_size, 2)
        if "classifier" in heads:
            counts = [num_labels] if isinstance(num_labels, int) else num_labels
            classifiers = [nn.Linear(config.hidden_size, count) for count in counts]
            self.classifier = classifiers[0] if tasks is None else nn.ModuleList(classifiers)


@dataclass(frozen=True)
class Weights:
    """A whole model that can be written in any format."""

    tensors: dict[str, Tensor]  # today's names, without the tied decoder; vocabulary tables are padded
    config: BertConfig
    tokenizer: BertTokenizer | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    def unpadded(self) -> dict[str, Tensor]:
        """Return the tensors with one row per word piece."""
        rows = self.config.vocab_size
        return {
            name: with_rows(tensor, (rows, *tensor.shape[1:])) if name.endswith(VOCABULARY_ROWS) else tensor
            for name, tensor in self.tensors.items()
        }


def label_names(state: Mapping[str, Any], config: BertConfig, count: int) -> list[str]:
    """Return the names of a classifier's ``count`` outputs; none if nothing names them, or only as LABEL_0, LABEL_1.

    They are the "labels" of a checkpoint of this suite, else ``id2label`` of transformers' configuration.
    """
    held = vars(config).get("id2label")
    keys = map(str, range(count))
    listed = [held[key] for key in keys if key in held] if isinstance(held, dict) and len(held) == count else []
    names = list(map(str, state.get("labels", listed)))
    generic = [f"LABEL_{index}" for index in range(count)]
    return names if len(names) == count and [name.upper() for name in names] != generic else []


def heads_in(names: Collection[str]) -> list[str]:
    """Return the heads that some of ``names`` belong to."""
    return [head for head in HEADS if any(name.startswith(f"{head}.") for name in names)]


def build_model(state: dict[str, Tensor], config: BertConfig, attention: str = "auto") -> BertWithHeads:
    """Return a new model with the heads that a state dict in today's names has."""
    labels: int | list[int] = len(state["classifier.weight"]) if "classifier.weight" in state else 2
    tasks = sum(re.fullmatch(r"classifier\.\d+\.weight", name) is not None for name in state)
    if tasks:
        missing = [name for task in range(tasks) if (name := f"classifier.{task}.weight") not in state]
        if missing:
            raise UsageError(f"{shorten(missing)}: missing, expected a head for each of {tasks} tasks from 0 on")
        labels = [len(state[f"classifier.{task}.weight"]) for task in range(tasks)]
    return BertWithHeads(config, heads_in(state), labels, attention)


def match_config(
    state: dict[str, Any],
    config: BertConfig,
    tokenizer: BertTokenizer | None,
    what: str,
    allow_missing: Sequence[str] = (),
) -> tuple[Weights, LoadReport]:
    """Check what :func:`read_checkpoint` returned against ``config``.

    A head may be missing as a whole, and so may the pooler if no head needs it. Any other missing tensor must match one
    of ``allow_missing``; it is initialised, with the same values each time. Raises UsageError, which starts with
    ``what``, for other missing tensors, a pattern that no tensor matches, encoder tensors that ``config`` has no place
    for, wrong shapes and values that are not finite.
    """
    named = canonical_names(state["model"], bare=False, what=what)
    with torch.device("meta"):
        model, full = build_model(named, config), BertWithHeads(config, HEADS)
    _refuse_idle(allow_missing, [*model.state_dict(), *full.state_dict()])
    absent = () if POOLED.intersection(heads_in(named)) or any("pooler." in name for name in named) else POOLER
    absent = [name for name in absent if not any(fnmatchcase(name, pattern) for pattern in allow_missing)]
    tensors, report = match_weights(model, state, what, [*allow_missing, *absent])
    report = replace(report, missing=[name for name in report.missing if name not in absent])
    if report.missing:
        tensors |= _fresh(named, config, report.missing)
    decoder = tensors.pop(DECODER, None)
    if decoder is not None:
        tensors.setdefault(WORDS, decoder)
    broken = [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        raise UsageError(f"{what}: {shorten(broken)}: not finite, the file is damaged or its training diverged")
    facts = {name: state[name] for name in FACTS if name in state}
    if "classifier.weight" in tensors:
        facts["labels"] = label_names(state, config, len(tensors["classifier.weight"]))
    matched = [name for name in tensors if name not in report.missing]
    report = replace(report, matched=matched, skipped=state.get("skipped", []))
    return Weights(tensors, config, tokenizer, facts), report


def _refuse_idle(patterns: Sequence[str], names: Sequence[str]) -> None:
    """Raise UsageError for a pattern that matches nothing: a misspelled one would allow what was not meant."""
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UsageError(f"--allow_missing {pattern}: matches no tensor, expected names such as {names[0]}")


def _fresh(state: dict[str, Tensor], config: BertConfig, names: Collection[str]) -> dict[str, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_model(state, config)
        model.initialize()
    return {name: tensor for name, tensor in model.state_dict().items() if name in names}
