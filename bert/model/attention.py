"""Self-attention over a token stream: every token attends to the tokens of its own sequence.

A backend is a function ``(qkv [T, 3, heads, head_size], layout, dropout) -> [T, heads, head_size]`` and a row of
``ATTENTION``. Padding exists only here, and only in the backends that need it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._triton import has_triton_package

from bert.batch import TaskGroup
from bert.errors import UsageError
from bert.model import blocked
from bert.model.dropout import draw_keys
from bert.model.dropout import dropout as drop

HAS_TRITON = has_triton_package()


class Layout(NamedTuple):
    """The places of the S sequences in a stream of T tokens."""

    cu_seqlens: Tensor  # [S + 1] int32, start of each sequence, then T
    max_seqlen: int
    position_ids: Tensor  # [T], position of the token in its sequence
    slots: Tensor  # [T], row of the token in a padded [S * max_seqlen] table
    attention: str  # a key of ATTENTION
    groups: tuple[TaskGroup, ...] = ()  # by task; none: all sequences are of task 0

    def part(self, group: TaskGroup) -> Layout:
        """Return the layout of the sequences of ``group`` alone."""
        (first, last), (low, high) = group.sequences, group.tokens
        if (first, last) == (0, self.num_sequences):
            return self._replace(groups=())
        slots = self.slots[low:high] - first * self.max_seqlen
        cu_seqlens = self.cu_seqlens[first : last + 1] - low
        return self._replace(cu_seqlens=cu_seqlens, position_ids=self.position_ids[low:high], slots=slots, groups=())

    @property
    def num_sequences(self) -> int:
        return self.cu_seqlens.numel() - 1


def build_layout(
    cu_seqlens: Tensor, max_seqlen: int, num_tokens: int, attention: str = "auto", groups: tuple[TaskGroup, ...] = ()
) -> Layout:
    """Derive the per-token indices of a stream on its device, without a synchronisation."""
    tokens = torch.arange(num_tokens, device=cu_seqlens.device)
    sequence_ids = torch.bucketize(tokens, cu_seqlens[1:].long(), right=True)
    position_ids = tokens - cu_seqlens[sequence_ids]
    return Layout(
        cu_seqlens,
        max_seqlen,
        position_ids,
        sequence_ids * max_seqlen + position_ids,
        resolve_attention(attention, cu_seqlens.device),
        groups,
    )


def resolve_attention(name: str, device: torch.device) -> str:
    """Return the backend to use for ``name``; ``auto`` is the fastest one of the device."""
    if name == "auto" and device.type == "cuda":  # the kernels are for Ampere and newer
        return "fused" if torch.cuda.get_device_capability(device) >= (8, 0) else "sdpa"
    if name == "auto":
        return "matmul" if torch.is_autocast_enabled("cpu") else "blocked"
    return check_attention(name)


def check_attention(name: str) -> str:
    """Return ``name``; raises UsageError if it is neither auto nor a backend."""
    if name != "auto" and name not in ATTENTION:
        raise UsageError(f"--attention {name}: unknown, expected auto or one of {', '.join(ATTENTION)}")
    return name


class ScatterRows(torch.autograd.Function):
    """Put row i of ``rows`` at ``index[i]`` of a zeroed table. Indices are distinct, so backward is a plain gather."""

    @staticmethod
    def forward(ctx, rows: Tensor, index: Tensor, size: int) -> Tensor:
        ctx.save_for_backward(index)
        return rows.new_zeros((size, *rows.shape[1:])).index_copy(0, index, rows)

    @staticmethod
    def backward(ctx, *grads: Tensor):
        (index,) = ctx.saved_tensors
        return grads[0].index_select(0, index), None, None


class GatherRows(torch.autograd.Function):
    """Take ``table[index]``. Indices are distinct, so backward is a plain scatter, without atomic additions."""

    @staticmethod
    def forward(ctx, table: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.size = table.shape[0]
        return table.index_select(0, index)

    @staticmethod
    def backward(ctx, *grads: Tensor):
        (index,) = ctx.saved_tensors
        grad = grads[0]
        return grad.new_zeros((ctx.size, *grad.shape[1:])).index_copy(0, index, grad), None


def scatter_rows(rows: Tensor, index: Tensor, size: int) -> Tensor:
    """Put row i at ``index[i]`` of a zeroed table of ``size`` rows."""
    if not torch.is_grad_enabled():  # plain operators, which can be exported
        return rows.new_zeros((size, *rows.shape[1:])).index_copy(0, index, rows)
    return ScatterRows.apply(rows, index, size)  # type: ignore[return-value]


def gather_rows(table: Tensor, index: Tensor) -> Tensor:
    """Take ``table[index]``, of distinct indices."""
    if not torch.is_grad_enabled():
        return table.index_select(0, index)
    return GatherRows.apply(table, index)  # type: ignore[return-value]


def reference_attention(qkv: Tensor, layout: Layout, dropout: float) -> Tensor:
    """softmax(q k^T / sqrt(d)) v, one sequence after the other (Vaswani et al. 2017, equation 1)."""
    contexts = []
    for sequence in qkv.split(layout.cu_seqlens.diff().tolist()):
        q, k, v = sequence.permute(1, 2, 0, 3)  # each [heads, length, head_size]
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        probabilities = drop(scores.softmax(-1), dropout, training=True)
        contexts.append((probabilities @ v).transpose(0, 1))
    return torch.cat(contexts)


def sdpa_attention(qkv: Tensor, layout: Layout, dropout: float) -> Tensor:
    """PyTorch's scaled_dot_product_attention on a padded copy; runs on any device."""
    q, k, v, real = _pad(qkv, layout)
    context = F.scaled_dot_product_attention(q, k, v, attn_mask=real, dropout_p=dropout)
    return _unpad(context, layout)


def matmul_attention(qkv: Tensor, layout: Layout, dropout: float) -> Tensor:
    """Two batched products on a padded copy, with the softmax between them left to the compiler to fuse.

    It supports dropout, which the CPU's flash kernel does not.
    """
    q, k, v, real = _pad(qkv, layout)
    scores = (q @ k.transpose(-1, -2)).float() / math.sqrt(q.shape[-1])
    probabilities = scores.masked_fill(~real, -math.inf).softmax(-1).to(v.dtype)
    return _unpad(drop(probabilities, dropout, training=True) @ v, layout)


def _pad(qkv: Tensor, layout: Layout) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """[T, 3, heads, head_size] -> q, k, v, each [S, heads, max_seqlen, head_size]; real keys [S, 1, 1, max_seqlen]."""
    size = layout.num_sequences * layout.max_seqlen
    padded = scatter_rows(qkv, layout.slots, size).unflatten(0, (layout.num_sequences, layout.max_seqlen))
    q, k, v = padded.permute(2, 0, 3, 1, 4)
    columns = torch.arange(layout.max_seqlen, device=qkv.device)
    real = columns < layout.cu_seqlens.diff()[:, None]
    return q, k, v, real[:, None, None, :]


def _unpad(context: Tensor, layout: Layout) -> Tensor:
    """[S, heads, max_seqlen, head_size] -> [T, heads, head_size]"""
    return gather_rows(context.transpose(1, 2).flatten(0, 1), layout.slots)


def varlen_attention(qkv: Tensor, layout: Layout, dropout: float) -> Tensor:
    """PyTorch's FlashAttention kernel for variable lengths (Dao 2023); CUDA, half precision, no padding."""
    if qkv.dtype == torch.float32:  # the kernel has no fp32 form
        return sdpa_attention(qkv, layout, dropout)
    q, k, v = qkv.unbind(1)
    cu, longest = layout.cu_seqlens, layout.max_seqlen
    context, *_ = torch.ops.aten._flash_attention_forward(q, k, v, cu, cu, longest, longest, dropout, False, False)
    return context


def fused_attention(qkv: Tensor, layout: Layout, dropout: float) -> Tensor:
    """Triton kernels for short sequences and packed q, k, v; CUDA, half precision, no padding, no atomics."""
    tokens, _, heads, size = qkv.shape
    if qkv.dtype == torch.float32 or size not in (16, 32, 64, 128) or not HAS_TRITON:
        return varlen_attention(qkv, layout, dropout)
    from bert.model.kernels.attention import attention  # imported here: a CPU installation has no Triton

    keys = draw_keys(tokens + heads * layout.max_seqlen, qkv.device) if dropout > 0 else None
    return attention(qkv, layout.cu_seqlens, layout.max_seqlen, dropout, keys)


def blocked_attention(qkv: Tensor, layout: Layout, dropout: float) -> Tensor:
    """One sequence after the other in the cache, no padding; CPU, fp32."""
    if qkv.dtype != torch.float32 or qkv.device.type != "cpu":
        return matmul_attention(qkv, layout, dropout)
    return blocked.attention(qkv, layout.cu_seqlens, dropout, torch.is_grad_enabled() and qkv.requires_grad)[0]


ATTENTION: dict[str, Callable[[Tensor, Layout, float], Tensor]] = {
    "fused": fused_attention,
    "varlen": varlen_attention,
    "sdpa": sdpa_attention,
    "blocked": blocked_attention,
    "matmul": matmul_attention,
    "reference": reference_attention,
}


def attend(qkv: Tensor, layout: Layout, dropout: float) -> Tensor:
    """Run the backend of ``layout`` on heads of any size: the kernels want powers of two from 16 on.

    Zeros beyond the size change no product. Queries are scaled up: the kernels divide by the root of the padded size.
    """
    backend, size = ATTENTION[layout.attention], qkv.shape[-1]
    padded = max(16, 1 << (size - 1).bit_length())
    if layout.attention not in ("fused", "varlen") or padded == size:
        return backend(qkv, layout, dropout)
    q, k, v = F.pad(qkv, (0, padded - size)).unbind(1)
    return backend(torch.stack([q * math.sqrt(padded / size), k, v], 1), layout, dropout)[..., :size]
