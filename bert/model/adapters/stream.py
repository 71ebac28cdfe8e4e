"""The adapters of a model, one for each task, and what they change in a stream of sequences of several tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from itertools import groupby
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bert.batch import TaskGroup
from bert.model.adapters.config import AdapterConfig
from bert.model.adapters.kinds import ADAPTERS, Adapter, Part
from bert.model.adapters.plain import LayerHooks, NoAdapters, Norm, StreamHooks
from bert.model.attention import Layout
from bert.model.config import BertConfig


def build_adapters(config: BertConfig, adapters: Sequence[AdapterConfig | None]) -> nn.Module:
    """Return the adapters of each task; a plain BERT where no task has any."""
    if not any(adapters):
        return NoAdapters()
    filled = [adapter or AdapterConfig("none") for adapter in adapters]
    return TaskAdapters(ADAPTERS[adapter.kind](config, adapter) for adapter in filled)


class Run(NamedTuple):
    """A part of the stream, and the adapters of its groups, which are of one kind."""

    kind: type[Adapter]
    tasks: list[Adapter]
    part: Part
    tokens: slice


class TaskAdapters(nn.ModuleList):
    """The adapter of each task."""

    def hooks(self, layout: Layout) -> StreamHooks:
        """Return what changes for the tasks of a stream; without groups it is all of task 0."""
        everything = TaskGroup(0, (0, layout.num_sequences), (0, layout.position_ids.numel()))
        groups = layout.groups or (everything,)
        runs = []
        adapters: Any = self
        for _, each in groupby(groups, lambda group: adapters[group.task].adapter):
            members = list(each)
            tasks: list[Adapter] = [adapters[group.task] for group in members]
            begin, end = members[0], members[-1]
            whole = TaskGroup(0, (begin.sequences[0], end.sequences[1]), (begin.tokens[0], end.tokens[1]))
            part = Part(layout.part(whole), [group.since(whole) for group in members])
            runs.append(Run(type(tasks[0]), tasks, part, slice(*whole.tokens)))
        return AdaptedStream(runs)


class AdaptedStream(StreamHooks):
    """What the adapters of ``runs``, which cover the stream in order, change."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = runs

    @cached_property
    def has_norms(self) -> bool:
        return any(task.norms is not None for run in self.runs for task in run.tasks)

    def norm(self, number: int) -> Norm | None:
        """Return LayerNorm ``number`` of every task: 0 = of the embeddings, then two in each layer."""
        return partial(self._norm, number) if self.has_norms else None

    @property
    def embeddings_norm(self) -> Norm | None:  # type: ignore[override]
        return self.norm(0)

    def layer(self, number: int) -> LayerHooks:
        return AdaptedLayer(self, number)

    def top(self, hidden: Tensor) -> Tensor:
        return self.join("top", lambda run, tokens: run.kind.top(run.tasks, hidden[tokens], run.part), hidden)

    def changes(self, hook: str) -> bool:
        """Tell whether the kind of any task defines ``hook``."""
        return any(getattr(run.kind, hook) is not None for run in self.runs)

    def join(self, hook: str, apply: Callable[[Run, slice], Tensor], unchanged: Tensor) -> Tensor:
        """Return what ``apply`` makes of every run whose kind has ``hook``, and ``unchanged`` [T, H] of the others."""
        if not self.changes(hook):
            return unchanged
        parts = [apply(run, run.tokens) if getattr(run.kind, hook) else unchanged[run.tokens] for run in self.runs]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _norm(self, number: int, norm: Any, x: Tensor) -> Tensor:
        parts = []
        for run in self.runs:
            for task, (low, high) in zip(run.tasks, run.part.bounds, strict=True):
                rows = x[run.tokens][low:high]
                if task.norms is None:
                    parts.append(norm(rows))
                    continue
                weight, bias = task.norms.weight[number].float(), task.norms.bias[number].float()
                parts.append(F.layer_norm(rows.float(), norm.normalized_shape, weight, bias, norm.eps).to(x.dtype))
        return torch.cat(parts)


class AdaptedLayer(LayerHooks):
    """What changes in layer ``number``."""

    def __init__(self, stream: AdaptedStream, number: int) -> None:
        self.stream, self.number = stream, number
        self.attention = self._attention if stream.changes("attention") else None
        self.attention_norm, self.output_norm = stream.norm(2 * number + 1), stream.norm(2 * number + 2)

    def _attention(self, y: Tensor) -> Tensor:
        return self.stream.join(
            "attention", lambda run, at: run.kind.attention(run.tasks, self.number, y[at], run.part), y
        )

    def residual(self, hidden: Tensor, attended: Tensor) -> Tensor:
        def added(run: Run, at: slice) -> Tensor:
            term = run.kind.term(run.tasks, self.number, hidden[at], attended[at], run.part)
            return attended[at] + term.to(attended.dtype)

        return self.stream.join("term", added, attended)

    def output(self, output: Tensor) -> Tensor:
        return self.stream.join(
            "output", lambda run, at: run.kind.output(run.tasks, self.number, output[at], run.part), output
        )
