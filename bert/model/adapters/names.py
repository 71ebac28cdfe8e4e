"""How the published code names the parameters of adapters, and how this one does.

    ours_of({"bert.encoder.mult_aug_dense.3.bias": b})      # {"bert.adapters.3.down.bias": b}

There the maps into and out of the bottleneck of PALs are listed again under every layer that uses them.
"""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor

from bert.errors import UsageError

# Kinds, our name, the published one; {t} is a task, {l} a layer. The first pattern that matches a name applies.
ROWS: tuple[tuple[str, str, str], ...] = (
    (
        "houlsby houlsby_plus_pals",
        "adapters.{t}.layers.{l}.attention.down",
        "encoder.layer.{l}.attention.output.multi_layers.{t}.aug_dense",
    ),
    (
        "houlsby houlsby_plus_pals",
        "adapters.{t}.layers.{l}.attention.up",
        "encoder.layer.{l}.attention.output.multi_layers.{t}.aug_dense2",
    ),
    ("houlsby", "adapters.{t}.layers.{l}.output.down", "encoder.layer.{l}.output.multi_layers.{t}.aug_dense"),
    ("houlsby", "adapters.{t}.layers.{l}.output.up", "encoder.layer.{l}.output.multi_layers.{t}.aug_dense2"),
    ("houlsby_plus_pals", "adapters.{t}.layers.{l}.output", "encoder.layer.{l}.output.multi_layers.{t}.attn"),
    ("low_rank pals lhuc", "adapters.{t}.layers.{l}.scale", "encoder.layer.{l}.multi_lhuc.{t}.lhuc"),
    ("low_rank", "adapters.{t}.layers.{l}.down", "encoder.layer.{l}.multi_layers.{t}.aug_dense"),
    ("low_rank", "adapters.{t}.layers.{l}.up", "encoder.layer.{l}.multi_layers.{t}.aug_dense2"),
    ("pals", "adapters.{t}.layers.{l}", "encoder.layer.{l}.multi_layers.{t}.attn"),
    ("pals houlsby_plus_pals", "adapters.{t}.down", "encoder.mult_aug_dense.{t}"),
    ("pals houlsby_plus_pals", "adapters.{t}.up", "encoder.mult_aug_dense2.{t}"),
    ("top_attn", "adapters.{t}.down", "encoder.mult_dense.{t}"),
    ("top_attn", "adapters.{t}.up", "encoder.mult_dense2.{t}"),
    ("top_attn", "adapters.{t}.layers.{l}", "encoder.multi_layers.{t}.{l}"),
    ("top_bert_layer", "adapters.{t}.layer", "encoder.multi_layers.{t}"),
)
# Kind -> where its shared maps are listed again.
REPEATED = {
    "pals": "encoder.layer.{l}.multi_layers.{t}.aug_dense",
    "houlsby_plus_pals": "encoder.layer.{l}.output.multi_layers.{t}.aug_dense",
}
PREFIX = r"(?P<prefix>(?:module\.)?(?:bert\.)?)"  # module: as several GPUs save it
SHARED = re.compile(rf"{PREFIX}adapters\.(?P<t>\d+)\.(?P<map>down|up)(?P<rest>\..*)")


def _pattern(name: str) -> re.Pattern[str]:
    places = re.escape(name).replace(r"\{t\}", r"(?P<t>\d+)").replace(r"\{l\}", r"(?P<l>\d+)")
    return re.compile(rf"{PREFIX}{places}(?P<rest>\..*)?")


def _renamed(match: re.Match[str], name: str) -> str:
    parts = match.groupdict()
    return parts["prefix"] + name.format(t=parts["t"], l=parts.get("l")) + (parts["rest"] or "")


READ = tuple((_pattern(published), ours) for _, ours, published in ROWS)
WRITE = tuple((kinds.split(), _pattern(ours), published) for kinds, ours, published in ROWS)


def ours_of(state_dict: dict[str, Any], what: str = "checkpoint") -> dict[str, Any]:
    """Return tensors under our names; repeated ones come once. Raises UsageError where a repetition differs."""
    result: dict[str, Any] = {}
    for name, value in state_dict.items():
        found = next(((match, ours) for pattern, ours in READ if (match := pattern.fullmatch(name))), None)
        result[name if found is None else _renamed(*found)] = value
    shared = [match for name in result if (match := SHARED.fullmatch(name))]
    for match in shared:
        prefix, task, rest = match["prefix"], match["t"], match["map"] + match["rest"]
        again = re.compile(rf"{re.escape(prefix)}adapters\.{task}\.layers\.\d+\.(output\.)?{re.escape(rest)}")
        for name in [name for name in result if again.fullmatch(name)]:
            if not result.pop(name).equal(result[match[0]]):
                raise UsageError(f"{what}: {name} differs from {match[0]}, which the model shares between layers")
    return result


def published_of(tensors: dict[str, Tensor], kind: str, layers: int) -> dict[str, Tensor]:
    """Return the tensors of a model with adapters of ``kind`` under the published names, repeated ones included."""
    result: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        rows = [(match, to) for kinds, pattern, to in WRITE if kind in kinds and (match := pattern.fullmatch(name))]
        result[_renamed(*rows[0]) if rows else name] = tensor
        shared = SHARED.fullmatch(name)
        if shared and kind in REPEATED:
            suffix = ("2" if shared["map"] == "up" else "") + shared["rest"]
            for layer in range(layers):
                again = REPEATED[kind].format(t=shared["t"], l=layer)
                result[f"{shared['prefix']}{again}{suffix}"] = tensor
    return result
