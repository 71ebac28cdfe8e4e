"""Small models and batches that the tests share."""

import bert  # noqa: F401, I001  # first: keeps ./triton from posing as the compiler
import pytest
import torch

from bert.batch import Batch
from bert.model.config import BertConfig


@pytest.fixture
def tiny_config() -> BertConfig:
    """A 3-layer model without dropout; 101 pieces are padded to 104 rows."""
    return BertConfig(
        vocab_size=101,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        max_position_embeddings=64,
    )


@pytest.fixture
def make_batch():
    """Return a function (lengths, masked per sequence, vocab_size) -> a random token-stream batch."""

    def make(lengths: list[int], masked: int = 2, vocab_size: int = 101, seed: int = 0) -> Batch:
        draw = torch.Generator().manual_seed(seed)
        cu_seqlens = torch.tensor([0, *lengths]).cumsum(0)
        positions = [
            start + torch.randperm(length, generator=draw)[:masked].sort().values
            for start, length in zip(cu_seqlens.tolist(), lengths, strict=False)
        ]
        masked_positions = torch.cat(positions)
        tokens = sum(lengths)
        return Batch(
            input_ids=torch.randint(vocab_size, (tokens,), generator=draw),
            token_type_ids=torch.randint(2, (tokens,), generator=draw),
            cu_seqlens=cu_seqlens.int(),
            max_seqlen=max(lengths),
            masked_positions=masked_positions,
            masked_labels=torch.randint(vocab_size, (len(masked_positions),), generator=draw),
            next_sentence_labels=torch.randint(2, (len(lengths),), generator=draw),
        )

    return make
