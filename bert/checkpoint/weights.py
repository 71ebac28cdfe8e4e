"""Load weights from any PyTorch BERT checkpoint into a model, completely or with an error, never partly in silence.

Names are brought to one spelling first (2018 ports, NVIDIA's fused layers, DDP and compile prefixes, with or without
``bert.``). Then the file must hold every tensor of the model, except those that the caller allows to be missing (a new
head), and every encoder tensor of the file must be used::

    print(load_weights(model, load(path), f"--init_checkpoint {path}", allow_missing=["classifier.*"]))
    # 199 tensors loaded; left as initialised: classifier.weight, classifier.bias; not used: cls.predictions.bias
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from bert.errors import UsageError
from bert.model.names import ENCODER, VOCABULARY_ROWS, canonical_names


@dataclass(frozen=True)
class LoadReport:
    """Names in the model's spelling; a tied pair counts as its two names."""

    matched: list[str]
    missing: list[str]  # in the model, not in the file: left as initialised
    unexpected: list[str]  # in the file, not in the model: not used
    skipped: list[str] = field(default_factory=list)  # in the file, but no weights: slots of an optimizer, counters

    def __str__(self) -> str:
        text = f"{len(self.matched)} tensors loaded"
        text += f"; left as initialised: {shorten(self.missing)}" if self.missing else ""
        text += f"; not used: {shorten(self.unexpected)}" if self.unexpected else ""
        return text + (f"; skipped: {len(self.skipped)} of an optimizer" if self.skipped else "")


def load_weights(
    model: nn.Module, state_dict: dict[str, Any], what: str, allow_missing: Sequence[str] = ()
) -> LoadReport:
    """Copy a checkpoint's tensors into ``model`` (not yet wrapped) and report what matched.

    ``state_dict`` is a state dict or ``{"model": state dict, ...}``. ``allow_missing`` are patterns of names that the
    file need not have. A vocabulary table, padded for the hardware or not, is cut or zero-filled to the model's rows.
    Raises UsageError, which starts with ``what`` (flag and file), before anything is copied.
    """
    fitted, report = match_weights(model, state_dict, what, allow_missing)
    targets = model.state_dict(keep_vars=True)
    with torch.no_grad():
        for name, tensor in fitted.items():
            targets[name].copy_(tensor)
    return report


def match_weights(
    model: nn.Module, state_dict: dict[str, Any], what: str, allow_missing: Sequence[str] = ()
) -> tuple[dict[str, Tensor], LoadReport]:
    """Return a checkpoint's tensors under the names and in the shapes of ``model``, which may be on "meta".

    Of a tied pair, the names that the checkpoint has. Arguments and errors are those of :func:`load_weights`.
    """
    targets = model.state_dict(keep_vars=True)
    bare = not any(name.startswith("bert.") for name in targets)
    source = canonical_names(_tensors(state_dict, what), bare, what)
    ties = _ties(targets)
    missing = [name for names in ties if source.keys().isdisjoint(names) for name in names]
    unexpected = [name for name in source if name not in targets]
    _refuse_unmatched(missing, unexpected, what, allow_missing)
    present = [name for name in targets if name in source]
    wrong = list(filter(None, (_mis_shape(name, source[name], targets[name], model.config) for name in present)))
    if wrong:
        more = f"; {len(wrong) - 1} more have wrong shapes" if len(wrong) > 1 else ""
        raise UsageError(f"{what}: {wrong[0]}{more}")
    fitted = {name: with_rows(source[name], targets[name].shape) for name in present}
    for names in ties:
        held = [name for name in names if name in fitted]
        for name in held[1:]:
            if not torch.equal(fitted[held[0]], fitted[name]):
                raise UsageError(f"{what}: {held[0]} and {name} differ; expected them equal, the model ties them")
    return fitted, LoadReport([name for name in targets if name not in missing], missing, unexpected)


def with_rows(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return a vocabulary table with another number of rows; no word piece has the rows added, which are 0."""
    if tensor.shape == shape:
        return tensor
    resized = tensor.new_zeros(shape)
    resized[: len(tensor)] = tensor[: len(resized)]
    return resized


def shorten(names: Sequence[str], most: int = 4) -> str:
    """Join the first few names and count the rest: ``a, b, c, d and 3 more``."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def _tensors(state_dict: dict[str, Any], what: str) -> dict[str, Tensor]:
    inner = state_dict.get("model", state_dict)
    if not isinstance(inner, dict) or not inner:
        raise UsageError(f"{what}: expected a state dict, or one under 'model'")
    wrong = [str(name) for name, value in inner.items() if not isinstance(value, Tensor)]
    if wrong:
        raise UsageError(f"{what}: expected a state dict, or one under 'model'; not tensors: {shorten(wrong)}")
    return inner


def _ties(targets: dict[str, Any]) -> Iterable[list[str]]:
    """Group the names that share a parameter."""
    groups: dict[int, list[str]] = {}
    for name, tensor in targets.items():
        groups.setdefault(id(tensor), []).append(name)
    return groups.values()


def _refuse_unmatched(missing: list[str], unexpected: list[str], what: str, allow_missing: Sequence[str]) -> None:
    absent = [name for name in missing if not any(fnmatchcase(name, pattern) for pattern in allow_missing)]
    unused = [name for name in unexpected if name.removeprefix("bert.").startswith(ENCODER)]
    problems = [f"{len(absent)} tensors of the model are not in it ({shorten(absent)})"] if absent else []
    problems += [f"{len(unused)} of its encoder tensors are not in the model ({shorten(unused)})"] if unused else []
    if problems:
        raise UsageError(f"{what}: {'; '.join(problems)}")


def _mis_shape(name: str, tensor: Tensor, target: Tensor, config: Any) -> str | None:
    """Return what is wrong with a shape, if anything: a vocabulary table may be padded or not."""
    found, expected = list(tensor.shape), list(target.shape)
    accepted = f"{expected}"
    if name.endswith(VOCABULARY_ROWS):
        true, padded, width = config.vocab_size, config.padded_vocab_size, expected[1:]
        if found[1:] == width and true <= found[0] <= padded:
            return None
        accepted = f"{[true, *width]} (vocab_size {true}) or, padded, {[padded, *width]}"
    return None if found == expected else f"{name} has the shape {found}; expected {accepted}"
