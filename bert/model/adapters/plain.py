"""What the encoder asks of adapters, and the answer of a plain BERT: nothing is added anywhere.

A layer computes, with y = dropout(dense(context)) and z = dropout(dense(intermediate))::

    attended = LayerNorm(attention(y) + hidden)
    output   = output(LayerNorm(z + residual(hidden, attended)))
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

Norm = Callable[[nn.Module, Tensor], Tensor]  # (the layer's LayerNorm, its input) -> its output


class LayerHooks:
    """What is changed in one layer. None means: as it is, so that fused kernels may compute it."""

    attention: Callable[[Tensor], Tensor] | None = None
    attention_norm: Norm | None = None
    output_norm: Norm | None = None

    def residual(self, hidden: Tensor, attended: Tensor) -> Tensor:
        """Return what the second half of the layer is added to; all [T, hidden]."""
        del hidden
        return attended

    def output(self, output: Tensor) -> Tensor:
        """Return the output of the layer."""
        return output


class StreamHooks:
    """What is changed while one stream passes the encoder."""

    embeddings_norm: Norm | None = None

    def layer(self, number: int) -> LayerHooks:
        """Return the changes in layer ``number``."""
        del number
        return PLAIN_LAYER

    def top(self, hidden: Tensor) -> Tensor:
        """Return what takes the place of the last layer's output."""
        return hidden


PLAIN_LAYER, PLAIN = LayerHooks(), StreamHooks()


class NoAdapters(nn.Module):
    """The adapters of a plain BERT."""

    def hooks(self, layout: Any) -> StreamHooks:
        """Return what changes for the tasks of a stream."""
        del layout
        return PLAIN
