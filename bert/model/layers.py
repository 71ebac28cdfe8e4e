"""The encoder, on a stream of T tokens without padding. Attribute names give the field's usual state-dict names."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bert.errors import UsageError
from bert.model.adapters.plain import PLAIN, PLAIN_LAYER, LayerHooks, Norm, StreamHooks
from bert.model.attention import ATTENTION, HAS_TRITON, Layout
from bert.model.config import BertConfig
from bert.model.dropout import Dropout, draw_keys

gelu_tanh = partial(F.gelu, approximate="tanh")

# "gelu" is the exact erf form of the first BERT; today's TensorFlow BERT and NVIDIA's use the tanh approximation.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": gelu_tanh,
    "gelu_new": gelu_tanh,
    "relu": F.relu,
    "tanh": torch.tanh,
    "swish": F.silu,
    "linear": lambda x: x,
}


def activation(name: str) -> Callable[[Tensor], Tensor]:
    if name not in ACTIVATIONS:
        raise UsageError(f"hidden_act {name!r} is unknown: expected one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


class LayerNorm(nn.LayerNorm):
    """Layer normalisation with fp32 statistics. It returns its input's dtype, so the stream stays half precision."""

    def forward(self, x: Tensor) -> Tensor:
        normed = F.layer_norm(x.float(), self.normalized_shape, self.weight.float(), self.bias.float(), self.eps)
        return normed.to(x.dtype)


class BertEmbeddings(nn.Module):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.padded_vocab_size, config.hidden_size)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(
        self, input_ids: Tensor, token_type_ids: Tensor, position_ids: Tensor, norm: Norm | None = None
    ) -> Tensor:
        """[T], [T], [T] -> [T, hidden]"""
        words = self.word_embeddings(input_ids)
        positions = self.position_embeddings(position_ids)
        # A product with a one-hot row: the gradient of a two-row table by scatter-add would be all collisions.
        one_hot = F.one_hot(token_type_ids, self.token_type_embeddings.num_embeddings).to(words.dtype)
        types = one_hot @ self.token_type_embeddings.weight
        embedded = self.dropout(_normed(norm, self.LayerNorm, words + positions + types))
        return embedded.to(_compute_dtype(embedded))


def qkv_weights(module: Any) -> tuple[Tensor, Tensor]:
    """Return weight and bias of a module's ``query``, ``key`` and ``value``, for one product instead of three.

    Under autocast the concatenation shares the copy that the cast makes anyway.
    """
    parts = (module.query, module.key, module.value)
    return torch.cat([each.weight for each in parts]), torch.cat([each.bias for each in parts])


class BertSelfAttention(nn.Module):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.heads, self.head_size = config.num_attention_heads, config.head_size
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = config.attention_probs_dropout_prob

    def forward(self, hidden: Tensor, layout: Layout) -> Tensor:
        qkv = F.linear(hidden, *qkv_weights(self)).unflatten(
            -1, (3, self.heads, self.head_size)
        )  # [T, 3, heads, head_size]
        context = ATTENTION[layout.attention](qkv, layout, self.dropout if self.training else 0.0)
        return context.flatten(-2)


def _normed(norm: Norm | None, layer_norm: nn.Module, x: Tensor) -> Tensor:
    return layer_norm(x) if norm is None else norm(layer_norm, x)


def _kernels(hidden: Tensor) -> Any:
    """Return :mod:`bert.model.kernels.fused` if it is faster (half precision on CUDA), else None."""
    exporting = torch.compiler.is_exporting() or torch.jit.is_tracing()  # other runtimes lack them
    if hidden.device.type != "cuda" or _compute_dtype(hidden) == torch.float32 or not HAS_TRITON or exporting:
        return None
    from bert.model.kernels import fused  # imported here: a CPU installation has no Triton

    return fused


class BertOutput(nn.Module):
    """LayerNorm(dropout(dense(x)) + residual), the end of both halves of a layer."""

    def __init__(self, config: BertConfig, in_features: int) -> None:
        super().__init__()
        self.dense = nn.Linear(in_features, config.hidden_size)
        self.LayerNorm = LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(
        self,
        hidden: Tensor,
        residual: Tensor,
        norm: Norm | None = None,
        change: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """[T, in_features], [T, hidden] -> [T, hidden]; ``change`` is applied to dropout(dense(x))."""
        kernels = _kernels(hidden) if norm is None and change is None else None
        if kernels is None:
            dense = self.dropout(self.dense(hidden))
            return _normed(norm, self.LayerNorm, (dense if change is None else change(dense)) + residual)
        x, norm, dropout = F.linear(hidden, self.dense.weight), self.LayerNorm, self.dropout.active_probability
        keys = draw_keys(sum(x.shape), x.device) if dropout > 0 else None
        return kernels.bias_dropout_add_norm(
            x, self.dense.bias, residual, norm.weight, norm.bias, keys, dropout, norm.eps
        )


class BertAttention(nn.Module):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.self = BertSelfAttention(config)
        self.output = BertOutput(config, config.hidden_size)

    def forward(self, hidden: Tensor, layout: Layout, hooks: LayerHooks = PLAIN_LAYER) -> Tensor:
        return self.output(self.self(hidden, layout), hidden, hooks.attention_norm, hooks.attention)


class BertIntermediate(nn.Module):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = activation(config.hidden_act)

    def forward(self, hidden: Tensor) -> Tensor:
        """[T, hidden] -> [T, intermediate]"""
        kernels = _kernels(hidden) if self.activation in (F.gelu, gelu_tanh) else None
        if kernels is None:
            return self.activation(self.dense(hidden))
        return kernels.bias_gelu(F.linear(hidden, self.dense.weight), self.dense.bias, self.activation is gelu_tanh)


class BertLayer(nn.Module):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.attention = BertAttention(config)
        self.intermediate = BertIntermediate(config)
        self.output = BertOutput(config, config.intermediate_size)

    def forward(self, hidden: Tensor, layout: Layout, hooks: LayerHooks = PLAIN_LAYER) -> Tensor:
        """[T, hidden] -> [T, hidden]"""
        attended = self.attention(hidden, layout, hooks)
        residual = hooks.residual(hidden, attended)
        return hooks.output(self.output(self.intermediate(attended), residual, hooks.output_norm))


class BertEncoder(nn.Module):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(BertLayer(config) for _ in range(config.num_hidden_layers))

    def forward(self, hidden: Tensor, layout: Layout, hooks: StreamHooks = PLAIN) -> list[Tensor]:
        """[T, hidden] -> the output of every layer, each [T, hidden]"""
        outputs = []
        for number, layer in enumerate(self.layer):
            hidden = layer(hidden, layout, hooks.layer(number))
            outputs.append(hidden)
        return [*outputs[:-1], hooks.top(hidden)]


class BertPooler(nn.Module):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, first_tokens: Tensor) -> Tensor:
        """[S, hidden], the [CLS] rows -> [S, hidden]"""
        return torch.tanh(self.dense(first_tokens))


def _compute_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype that matrix products will run in: the stream is cast to it once, not at every product."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
