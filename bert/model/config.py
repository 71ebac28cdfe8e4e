"""The shape of a BERT model, read from and written to the ``bert_config.json`` files that the field exchanges."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from bert.config import load_json
from bert.errors import UsageError
from bert.model.adapters.config import AdapterConfig, adapter_of

VOCAB_MULTIPLE = 8  # rows of the embedding table are padded to this: half-precision matrix units work on tiles of 8
# Type of a field -> what its values may be.
ALLOWED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "int": (lambda value: isinstance(value, int) and value >= 1, "a whole number, at least 1"),
    "float": (lambda value: isinstance(value, int | float) and 0 <= value < inf, "a number, at least 0"),
    "str": (lambda value: isinstance(value, str), "a text"),
}
DROPOUT = (lambda value: isinstance(value, int | float) and 0 <= value < 1, "a number from 0 to below 1")


@dataclass
class BertConfig:
    """Hyper-parameters of the encoder; defaults are BERT-base (Devlin et al. 2019, section 3).

    ``vocab_size`` is the true number of word pieces; tables are made with :attr:`padded_vocab_size` rows. Unknown keys
    of a JSON file are kept as attributes and written back.
    """

    vocab_size: int
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            is_allowed, expected = DROPOUT if f.name.endswith("_dropout_prob") else ALLOWED[str(f.type)]
            if isinstance(value, bool) or not is_allowed(value):
                raise UsageError(f"{f.name} {json.dumps(value, default=str)}: expected {expected}")
        if self.hidden_size % self.num_attention_heads:
            raise UsageError(
                f"hidden_size {self.hidden_size} is not divisible by num_attention_heads {self.num_attention_heads}"
            )

    @property
    def padded_vocab_size(self) -> int:
        return -(-self.vocab_size // VOCAB_MULTIPLE) * VOCAB_MULTIPLE

    def set_vocabulary(self, pieces: int) -> bool:
        """Set ``vocab_size`` to ``pieces`` if it is that number, padded or not; return whether it was."""
        padded = dataclasses.replace(self, vocab_size=pieces).padded_vocab_size
        fits = self.vocab_size in (pieces, padded)
        if fits:
            self.vocab_size = pieces
        return fits

    @property
    def head_size(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @property
    def adapter(self) -> AdapterConfig | None:
        """The adapter that the keys of Stickland and Murray's code ask for; a UsageError if they ask for two."""
        return adapter_of(vars(self))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> BertConfig:
        """Build it from the keys of a JSON file; raises UsageError naming a key whose value cannot be used."""
        known = {f.name for f in dataclasses.fields(cls)}
        if "vocab_size" not in values:
            raise UsageError("the model configuration has no vocab_size")
        config = cls(**{key: value for key, value in values.items() if key in known})
        vars(config).update({key: value for key, value in values.items() if key not in known})
        adapter_of(vars(config))
        return config

    @classmethod
    def from_json_file(cls, path: str | Path) -> BertConfig:
        """Read a ``bert_config.json``; a :class:`UsageError` names the file and what is wrong with it."""
        values = load_json(path, "--config_file")
        try:
            return cls.from_dict(values)
        except UsageError as error:
            raise UsageError(f"--config_file {path}: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    def to_json_string(self) -> str:
        return json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"
