"""The kinds of adapters: one module for each task, with the parameters of that task in all layers.

Shapes: hidden H, bottleneck d. Every product has a bias. A kind is a class and its row in :data:`ADAPTERS`; it defines
those of ``attention``, ``term``, ``output`` and ``top`` that it changes. They are static and take the modules of all
tasks in a part of the stream, so that several tasks share one call::

    LowRank.term([cola, rte], layer=3, hidden=x, attended=y, part=part)         # [T, H] -> [T, H]
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bert.batch import TaskGroup
from bert.model.adapters.config import AdapterConfig
from bert.model.adapters.groups import Bounds, Weights, grouped_linear, grouped_norm, grouped_scale
from bert.model.attention import Layout, attend
from bert.model.config import BertConfig
from bert.model.layers import BertAttention, BertLayer, qkv_weights

TOP_LAYERS = 6  # of top_attn


class Part(NamedTuple):
    """Neighbouring groups of a stream whose tasks have adapters of one kind."""

    layout: Layout
    groups: Sequence[TaskGroup]  # counted from the part's first sequence and token

    @property
    def bounds(self) -> Bounds:
        """The tokens of each task."""
        return [group.tokens for group in self.groups]


class OwnNorms(nn.Module):
    """LayerNorms of one task: those of the embeddings, and of both halves of each layer."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        shape = (2 * config.num_hidden_layers + 1, config.hidden_size)
        self.weight, self.bias = nn.Parameter(torch.ones(shape)), nn.Parameter(torch.zeros(shape))


class Adapter(nn.Module):
    """The adapter of one task; as such it changes nothing, but may have LayerNorms of its own."""

    attention: ClassVar[Any] = None  # (tasks, layer, dense output y [T, H], part) -> [T, H]
    term: ClassVar[Any] = None  # (tasks, layer, hidden [T, H], attended [T, H], part) -> [T, H], added to attended
    output: ClassVar[Any] = None  # (tasks, layer, output [T, H], part) -> [T, H]
    top: ClassVar[Any] = None  # (tasks, last output [T, H], part) -> [T, H]

    def __init__(self, config: BertConfig, adapter: AdapterConfig) -> None:
        super().__init__()
        self.adapter = adapter
        self.norms = OwnNorms(config) if adapter.own_norms else None


class Bottleneck(nn.Module):
    """up(gelu(down(x)))"""

    def __init__(self, hidden: int, size: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(hidden, size), nn.Linear(size, hidden)


def low_rank(tasks: Sequence[Any], x: Tensor, bounds: Bounds) -> Tensor:
    """W_up gelu(W_down x): [T, H] -> [T, H]"""
    small = F.gelu(grouped_linear(x, [_weights(task.down) for task in tasks], bounds))
    return grouped_linear(small, [_weights(task.up) for task in tasks], bounds)


class Projections(nn.Module):
    """Queries, keys and values in the bottleneck."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(size, size) for _ in range(3))


def projected_attention(tasks: Sequence[Any], projections: Sequence[Projections], x: Tensor, part: Part) -> Tensor:
    """gelu(W_up MH(W_down x)) (Stickland and Murray 2019, section 3.2): [T, H] -> [T, H]"""
    first = tasks[0]
    small = grouped_linear(x, [_weights(task.down) for task in tasks], part.bounds)
    qkv = grouped_linear(small, [Weights(*qkv_weights(each)) for each in projections], part.bounds)
    dropout = first.dropout if first.training else 0.0
    context = attend(qkv.unflatten(-1, (3, first.adapter.heads, -1)), part.layout, dropout)
    return F.gelu(grouped_linear(context.flatten(-2), [_weights(task.up) for task in tasks], part.bounds))


class Scale(nn.Module):
    """LHUC: each unit times 2 sigmoid(r), r = 0 at first (Swietojanski and Renals 2014)."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(hidden))


def scaled(tasks: Sequence[Any], layer: int, x: Tensor, part: Part) -> Tensor:
    """[T, H] -> [T, H]"""
    factors = [2 * torch.sigmoid(task.layers[layer].scale) for task in tasks]
    return grouped_scale(x, [each.to(x.dtype) for each in factors], part.bounds)


class Pals(Adapter):
    """Projected attention layers; the maps into and out of the bottleneck are the same in all layers."""

    def __init__(self, config: BertConfig, adapter: AdapterConfig) -> None:
        super().__init__(config, adapter)
        self.dropout = config.attention_probs_dropout_prob
        self.down = nn.Linear(config.hidden_size, adapter.size)
        self.up = nn.Linear(adapter.size, config.hidden_size)
        self.layers = _per_layer(config, lambda: Projections(adapter.size), adapter.lhuc)

    @staticmethod
    def term(tasks: Sequence[Any], layer: int, hidden: Tensor, attended: Tensor, part: Part) -> Tensor:
        del attended
        added = projected_attention(tasks, [task.layers[layer] for task in tasks], hidden, part)
        return scaled(tasks, layer, added, part) if tasks[0].adapter.lhuc else added


class LowRank(Adapter):
    """A bottleneck in parallel to each layer."""

    def __init__(self, config: BertConfig, adapter: AdapterConfig) -> None:
        super().__init__(config, adapter)
        self.layers = _per_layer(config, lambda: Bottleneck(config.hidden_size, adapter.size), adapter.lhuc)

    @staticmethod
    def term(tasks: Sequence[Any], layer: int, hidden: Tensor, attended: Tensor, part: Part) -> Tensor:
        del attended
        added = low_rank([task.layers[layer] for task in tasks], hidden, part.bounds)
        return scaled(tasks, layer, added, part) if tasks[0].adapter.lhuc else added


class Houlsby(Adapter):
    """Two bottlenecks in each layer (Houlsby et al. 2019). The second reads ``attended``, as in the published code."""

    def __init__(self, config: BertConfig, adapter: AdapterConfig) -> None:
        super().__init__(config, adapter)

        def build() -> nn.Module:
            return _halves(*(Bottleneck(config.hidden_size, adapter.size) for _ in range(2)))

        self.layers = nn.ModuleList(build() for _ in range(config.num_hidden_layers))

    @staticmethod
    def attention(tasks: Sequence[Any], layer: int, y: Tensor, part: Part) -> Tensor:
        return y + low_rank([task.layers[layer]["attention"] for task in tasks], y, part.bounds)

    @staticmethod
    def term(tasks: Sequence[Any], layer: int, hidden: Tensor, attended: Tensor, part: Part) -> Tensor:
        del hidden
        return low_rank([task.layers[layer]["output"] for task in tasks], attended, part.bounds)


class HoulsbyPlusPals(Adapter):
    """The first bottleneck of Houlsby's, and projected attention in place of the second."""

    attention = Houlsby.attention

    def __init__(self, config: BertConfig, adapter: AdapterConfig) -> None:
        super().__init__(config, adapter)
        self.dropout = config.attention_probs_dropout_prob
        self.down = nn.Linear(config.hidden_size, adapter.size)
        self.up = nn.Linear(adapter.size, config.hidden_size)

        def build() -> nn.Module:
            return _halves(Bottleneck(config.hidden_size, adapter.extra_size), Projections(adapter.size))

        self.layers = nn.ModuleList(build() for _ in range(config.num_hidden_layers))

    @staticmethod
    def term(tasks: Sequence[Any], layer: int, hidden: Tensor, attended: Tensor, part: Part) -> Tensor:
        del hidden
        return projected_attention(tasks, [task.layers[layer]["output"] for task in tasks], attended, part)


class Lhuc(Adapter):
    """Scales the output of each layer."""

    def __init__(self, config: BertConfig, adapter: AdapterConfig) -> None:
        super().__init__(config, adapter)
        self.layers = nn.ModuleList(Scale(config.hidden_size) for _ in range(config.num_hidden_layers))

    @staticmethod
    def output(tasks: Sequence[Any], layer: int, output: Tensor, part: Part) -> Tensor:
        return scaled(tasks, layer, output, part)


class TopAttention(Adapter):
    """Attention layers in a bottleneck after the last layer, whose output they replace."""

    def __init__(self, config: BertConfig, adapter: AdapterConfig) -> None:
        super().__init__(config, adapter)
        small = dataclasses.replace(config, hidden_size=adapter.size, num_attention_heads=adapter.heads)
        self.down = nn.Linear(config.hidden_size, adapter.size)
        self.up = nn.Linear(adapter.size, config.hidden_size)
        self.layers = nn.ModuleList(BertAttention(small) for _ in range(TOP_LAYERS))

    @staticmethod
    def top(tasks: Sequence[Any], hidden: Tensor, part: Part) -> Tensor:
        bounds, first = part.bounds, tasks[0]
        small = grouped_linear(hidden, [_weights(task.down) for task in tasks], bounds)
        for number in range(TOP_LAYERS):
            layers = [task.layers[number] for task in tasks]
            qkv = grouped_linear(small, [Weights(*qkv_weights(each.self)) for each in layers], bounds)
            dropout = layers[0].self.dropout if first.training else 0.0
            context = attend(qkv.unflatten(-1, (3, first.adapter.heads, -1)), part.layout, dropout).flatten(-2)
            dense = grouped_linear(context, [_weights(each.output.dense) for each in layers], bounds)
            added = layers[0].output.dropout(dense) + small
            small = grouped_norm(added, [each.output.LayerNorm for each in layers], bounds)
        return grouped_linear(small, [_weights(task.up) for task in tasks], bounds)


class TopLayer(Adapter):
    """One more layer, whose output replaces the last one's."""

    def __init__(self, config: BertConfig, adapter: AdapterConfig) -> None:
        super().__init__(config, adapter)
        self.layer = BertLayer(config)

    @staticmethod
    def top(tasks: Sequence[Any], hidden: Tensor, part: Part) -> Tensor:
        groups = zip(tasks, part.groups, strict=True)
        return torch.cat([task.layer(hidden[slice(*group.tokens)], part.layout.part(group)) for task, group in groups])


def _weights(linear: nn.Linear) -> Weights:
    return Weights(linear.weight, linear.bias)


def _per_layer(config: BertConfig, build: Callable[[], nn.Module], lhuc: bool) -> nn.ModuleList:
    layers = nn.ModuleList(build() for _ in range(config.num_hidden_layers))
    if lhuc:
        for layer in layers:
            layer.scale = nn.Parameter(torch.zeros(config.hidden_size))
    return layers


def _halves(attention: nn.Module, output: nn.Module) -> nn.ModuleDict:
    return nn.ModuleDict({"attention": attention, "output": output})


ADAPTERS: dict[str, type[Adapter]] = {
    "none": Adapter,
    "pals": Pals,
    "low_rank": LowRank,
    "top_attn": TopAttention,
    "top_bert_layer": TopLayer,
    "houlsby": Houlsby,
    "houlsby_plus_pals": HoulsbyPlusPals,
    "lhuc": Lhuc,
}
