"""Weights from any PyTorch BERT checkpoint into a model, or an error: never a part of them in silence.

Names are brought to one spelling first (2018 ports, NVIDIA's fused layers, DDP and compile prefixes, with or without
``bert.``). Then every tensor of the model must be found, except those that the caller allows to be missing (a new
head), and every encoder tensor of the file must be used::

    print(load_weights(model, load(path), f"--init_checkpoint {path}", allow_missing=["classifier.*"]))
    # 199 tensors loaded; left as initialised: classifier.weight, classifier.bias; not used: cls.predictions.bias
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from bert.errors import UsageError
from bert.model.bert import canonical_name
from bert.tokenization import BertTokenizer

ENCODER = ("embeddings.", "encoder.", "pooler.")  # the modules of a bare BertModel
VOCABULARY_ROWS = ("word_embeddings.weight", "predictions.decoder.weight", "predictions.bias")
CONSTANTS = ("embeddings.position_ids", "embeddings.token_type_ids")  # buffers that Hugging Face once saved


@dataclass(frozen=True)
class LoadReport:
    """Names in the model's spelling; a tied pair counts as its two names."""

    matched: list[str]
    missing: list[str]  # of the model, not in the file: left as they were
    unexpected: list[str]  # of the file, not in the model: not used

    def __str__(self) -> str:
        text = f"{len(self.matched)} tensors loaded"
        text += f"; left as initialised: {shorten(self.missing)}" if self.missing else ""
        return text + (f"; not used: {shorten(self.unexpected)}" if self.unexpected else "")


def load_weights(
    model: nn.Module, state_dict: dict[str, Any], what: str, allow_missing: Sequence[str] = ()
) -> LoadReport:
    """Copy a checkpoint's tensors into ``model`` (not yet wrapped) and report what matched.

    ``state_dict`` is a state dict or ``{"model": state dict, ...}``. ``allow_missing`` are patterns of names that the
    file need not have. A vocabulary padded for the hardware, or not, is cut or filled with zeros to the model's rows.
    Raises UsageError, which starts with ``what`` (flag and file), before anything is copied.
    """
    targets = model.state_dict(keep_vars=True)
    bare = not any(name.startswith("bert.") for name in targets)
    source = canonical_names(_tensors(state_dict, what), bare, what)
    ties = _ties(targets)
    missing = [name for names in ties if source.keys().isdisjoint(names) for name in names]
    unexpected = [name for name in source if name not in targets]
    _refuse_unmatched(missing, unexpected, what, allow_missing)
    config = getattr(model, "config", None)
    fitted = {name: _fit(source[name], targets[name], config, f"{what}: {name}") for name in targets if name in source}
    for names in ties:
        _refuse_untied([name for name in names if name in fitted], fitted, what)
    with torch.no_grad():
        for name, tensor in fitted.items():
            targets[name].copy_(tensor)
    return LoadReport([name for name in targets if name not in missing], missing, unexpected)


def canonical_names(state_dict: dict[str, Tensor], bare: bool, what: str = "checkpoint") -> dict[str, Tensor]:
    """Return the tensors under today's names, the encoder's with ``bert.`` in front, or without it if ``bare``."""
    result: dict[str, Tensor] = {}
    for original, tensor in state_dict.items():
        name = canonical_name(original.replace("_orig_mod.", "").removeprefix("module."))
        core = name.removeprefix("bert.")
        if core.startswith(ENCODER):
            name = core if bare else f"bert.{core}"
        if core in CONSTANTS:
            continue
        if name in result:
            raise UsageError(f"{what}: two tensors mean {name}; one of them is {original}")
        result[name] = tensor
    # Hugging Face writes the bias of the vocabulary under two names.
    bias = result.pop("cls.predictions.decoder.bias", None)
    if bias is not None:
        result.setdefault("cls.predictions.bias", bias)
    return result


def shorten(names: Sequence[str], most: int = 4) -> str:
    """Join names, the first few and the number of the rest: ``a, b, c, d and 3 more``."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def check_tokenizer(tokenizer: BertTokenizer, saved: dict[str, Any], what: str, vocab_file: str) -> None:
    """Raise UsageError where a checkpoint was trained with another vocabulary or casing."""
    trained = BertTokenizer.from_state_dict(saved)
    if trained.fingerprint != tokenizer.fingerprint:
        raise UsageError(
            f"--vocab_file {vocab_file} ({tokenizer.vocab_size} pieces) is not the vocabulary of {what} "
            f"({trained.vocab_size} pieces)"
        )
    if trained.do_lower_case != tokenizer.do_lower_case:
        raise UsageError(
            f"--do_lower_case {str(tokenizer.do_lower_case).lower()}: {what} was trained with "
            f"{str(trained.do_lower_case).lower()}"
        )


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


def _fit(tensor: Tensor, target: Tensor, config: Any, where: str) -> Tensor:
    """Give a vocabulary table the model's number of rows; everything else must have the model's shape."""
    if tensor.shape == target.shape:
        return tensor
    if not (where.endswith(VOCABULARY_ROWS) and hasattr(config, "padded_vocab_size")):
        raise UsageError(f"{where} has the shape {list(tensor.shape)}; expected {list(target.shape)}")
    rows, true, padded = tensor.shape[0], config.vocab_size, config.padded_vocab_size
    if tensor.shape[1:] != target.shape[1:] or not true <= rows <= padded:
        width = list(target.shape[1:])
        raise UsageError(
            f"{where} has the shape {list(tensor.shape)}; expected {[true, *width]} (vocab_size {true}) "
            f"or, padded, {[padded, *width]}"
        )
    fitted = tensor.new_zeros(target.shape)  # no word piece has the rows from vocab_size on
    fitted[:rows] = tensor[: len(target)]
    return fitted


def _refuse_untied(names: list[str], fitted: dict[str, Tensor], what: str) -> None:
    for name in names[1:]:
        if not torch.equal(fitted[names[0]], fitted[name]):
            raise UsageError(f"{what}: {names[0]} and {name} differ; expected them equal, the model ties them")
