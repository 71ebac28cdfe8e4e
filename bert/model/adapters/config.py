"""Which adapter a model configuration asks for, in the published keys.

    {"mult": true, "pals": true, "hidden_size_aug": 204}        # bert_config.json: projected attention layers

The kinds and keys are those of Stickland and Murray 2019 and of their code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bert.errors import UsageError

# kind -> the keys that are true
KEYS: dict[str, frozenset[str]] = {
    "none": frozenset(),
    "pals": frozenset({"mult", "pals"}),
    "low_rank": frozenset({"mult"}),
    "top_attn": frozenset({"top"}),
    "top_bert_layer": frozenset({"top", "bert_lay_top"}),
    "houlsby": frozenset({"houlsby"}),
    "houlsby_plus_pals": frozenset({"houlsby", "pals"}),
    "lhuc": frozenset({"lhuc"}),
}
SWITCHES = frozenset().union(*KEYS.values())
# Width of the bottleneck for a hidden size of 768; other models get the same share of theirs.
PUBLISHED_SIZES = {
    "pals": 204,
    "low_rank": 100,
    "top_attn": 204,
    "houlsby": 50,
    "houlsby_plus_pals": 156,
}
PUBLISHED_EXTRA_SIZE = 50  # of the low-rank half of houlsby_plus_pals
# Of the attention in the bottleneck, for every size of the model, as in the published code; the paper says 12 for pals.
HEADS = {"pals": 6, "houlsby_plus_pals": 6, "top_attn": 12}


@dataclass(frozen=True)
class AdapterConfig:
    """The adapter of one task."""

    kind: str
    size: int = 0  # hidden_size_aug: width of the bottleneck
    extra_size: int = 0  # extra_dim: that of the low-rank half of houlsby_plus_pals
    heads: int = 0  # of the attention in the bottleneck
    lhuc: bool = False  # pals and low_rank: scale the added term by LHUC
    own_norms: bool = False  # the task has LayerNorms of its own

    def keys(self) -> dict[str, Any]:
        """Return the keys of a model configuration that ask for this adapter."""
        values: dict[str, Any] = {key: key in KEYS[self.kind] for key in SWITCHES}
        values["lhuc"] |= self.lhuc
        sizes = {"hidden_size_aug": self.size, "extra_dim": self.extra_size, "num_adapter_heads": self.heads}
        return {key: value for key, value in (values | sizes).items() if value}


def build_adapter_config(kind: str, hidden_size: int, **given: Any) -> AdapterConfig:
    """Return the adapter ``kind`` for a model; ``given`` are fields of the result, by default the published ones.

    Raises UsageError for an unknown kind and for a size that the heads do not divide.
    """
    if kind not in KEYS:
        raise UsageError(f"--adapter {kind}: expected one of {', '.join(KEYS)}")
    values = {name: value for name, value in given.items() if value}
    if kind in HEADS:
        values.setdefault("heads", HEADS[kind])
    heads = values.get("heads", 1)
    if kind in PUBLISHED_SIZES:
        values.setdefault("size", _scaled(PUBLISHED_SIZES[kind], hidden_size, heads))
    if kind == "houlsby_plus_pals":
        values.setdefault("extra_size", _scaled(PUBLISHED_EXTRA_SIZE, hidden_size, 1))
    if kind in HEADS and values["size"] % heads:
        raise UsageError(f"adapter {kind}: size {values['size']} is not divisible by its {heads} heads")
    return AdapterConfig(kind, **values)


def _scaled(size: int, hidden_size: int, multiple: int) -> int:
    return max(round(size * hidden_size / 768 / multiple), 1) * multiple


def adapter_of(values: Mapping[str, Any]) -> AdapterConfig | None:
    """Return the adapter that a model configuration asks for, if any.

    Raises UsageError where it asks for two, or a value is of the wrong kind.
    """
    for key in sorted(SWITCHES | {"google"}):
        if values.get(key) not in (None, False, True):  # 0 and 1 are equal to these
            raise UsageError(f"{key} {json.dumps(values[key], default=str)}: expected true or false")
    for key in ("hidden_size_aug", "extra_dim", "num_adapter_heads"):
        value = values.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
            raise UsageError(f"{key} {json.dumps(value, default=str)}: expected a whole number, at least 0")
    on = {key for key in SWITCHES if values.get(key)} | ({"houlsby"} if values.get("google") else set())
    if not on:
        return None
    lhuc = "lhuc" in on and "mult" in on
    kinds = [kind for kind, keys in KEYS.items() if keys == (on - {"lhuc"} if lhuc else on)]
    if not kinds:
        raise UsageError(f"the configuration asks for {' and '.join(sorted(on))}, expected one adapter: {_known()}")
    return build_adapter_config(
        kinds[0],
        values["hidden_size"],
        size=values.get("hidden_size_aug"),
        extra_size=values.get("extra_dim"),
        heads=values.get("num_adapter_heads"),
        lhuc=lhuc,
    )


def _known() -> str:
    return ", ".join(f"{kind} ({' and '.join(sorted(keys))})" for kind, keys in KEYS.items() if keys)
