"""A small model with every head, and the vocabulary that it belongs to."""

from pathlib import Path

import pytest
from random_models import random_model, weights_of

from bert.checkpoint.formats import Weights
from bert.model.config import BertConfig
from bert.tokenization import BertTokenizer


@pytest.fixture
def tokenizer(vocab_file: Path) -> BertTokenizer:
    return BertTokenizer(vocab_file)


@pytest.fixture
def config(tokenizer) -> BertConfig:
    """A 2-layer model whose 73 pieces are padded to 80 rows."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    return BertConfig(tokenizer.vocab_size, max_position_embeddings=40, **sizes)


@pytest.fixture
def weights(config, tokenizer) -> Weights:
    return weights_of(random_model(config), tokenizer)
