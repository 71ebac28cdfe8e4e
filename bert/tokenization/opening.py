"""Find the one tokenizer that flags, shards, checkpoint and files describe together.

    tokenizer = open_tokenizer("vocab.txt", flags, [Stated("shards/manifest.json", {"strip_accents": False})])
    print(guesses(tokenizer))               # "--do_lower_case true is a guess from vocab.txt; ..." or ""

What somebody states is a fact, and two facts that differ are an error. What nobody states is known for the published
models, by name or by vocabulary; the rest is a guess, which a flag overrules.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from bert.config import flag
from bert.errors import UsageError
from bert.tokenization.files import LIBRARY, VOCABULARY, read_files, read_settings
from bert.tokenization.tokenizer import BertTokenizer
from bert.tokenization.vocabulary import fingerprint, looks_uncased, read_vocabulary

# Names of published models and their folders, and whether they are uncased. Google's scripts know the first column.
PUBLISHED = [
    (r"(wwm_)?uncased_L-\d+_H-\d+_A-\d+|bert-\w+(-multilingual)?-uncased(-[\w-]+)?", True),
    (r"(multilingual|chinese)_L-12_H-768_A-12|bert-base-chinese", True),
    (r"(wwm_|multi_)?cased_L-\d+_H-\d+_A-\d+|bert-\w+(-multilingual|-german)?-cased(-[\w-]+)?", False),
]
# The vocabulary of all English uncased models, by its fingerprint.
PUBLISHED_VOCABULARIES = {"0f052197aac305fe42f378b5c61554b7bacb34b8be4af83fec2cfdcdffbc9973": True}
SETTINGS = ("do_lower_case", "strip_accents", "tokenize_chinese_chars", "pretokenized", "max_input_chars_per_word")


@dataclass
class TokenizerFlags:
    """How text is cut, as far as checkpoint, shards or the vocabulary's own files do not say it."""

    do_lower_case: bool | None = flag(
        None,
        "Whether the model is uncased; by default what checkpoint, shards or files say, else a guess.",
        aliases=["lower_case"],
    )
    strip_accents: bool | None = flag(None, "Whether accents are stripped; by default if the text is lower-cased.")
    tokenize_chinese_chars: bool | None = flag(
        None, "Whether each ideograph is a word; by default yes, unless --pretokenized."
    )
    pretokenized: bool | None = flag(
        None, "Whether words end at blanks only, because another tokenizer has cut the text; by default no."
    )
    bert_model: str | None = flag(None, "Name of the published model, such as bert-base-cased; tells the casing.")

    def stated(self) -> list[Stated]:
        """Return each setting that was given, under the name of its flag."""
        values = {name: getattr(self, name, None) for name in SETTINGS}
        facts = [Stated(f"--{name}", {name: value}) for name, value in values.items() if value is not None]
        name = self.bert_model or ""
        casing = published_casing(name) if "cased" not in name else "uncased" in name
        return [*facts, Stated(f"--bert_model {name}", {"do_lower_case": casing})]


class Stated(NamedTuple):
    """Settings of a tokenizer, any of them, and who states them."""

    what: str  # flag, or flag and file
    settings: Mapping[str, Any]


def open_tokenizer(vocab_file: str | Path, flags: TokenizerFlags, known: Sequence[Stated] = ()) -> BertTokenizer:
    """Read a vocabulary, or a folder with a tokenizer, of which ``flags`` and ``known`` say what its files may not.

    Raises UsageError where it is not BERT's, or where two facts differ.
    """
    path = Path(vocab_file)
    facts, names = [*flags.stated(), *known], path.absolute().parts[-3:]
    if path.is_dir() or (path.name in (LIBRARY, VOCABULARY) and path.is_file()):
        folder = path if path.is_dir() else path.parent
        held = read_files(folder, any(fact.settings.get("pretokenized") for fact in facts))
        if held is None:
            raise UsageError(f"--vocab_file {path}: no {VOCABULARY} and no {LIBRARY} in this folder")
    else:
        held = {"vocab": read_vocabulary(path), **read_settings(path)}
    return build_tokenizer({"source": "/".join(names[-2:]), **held}, f"--vocab_file {path}", facts, names)


def build_tokenizer(
    held: Mapping[str, Any], what: str, facts: Sequence[Stated] = (), names: Iterable[str] = ()
) -> BertTokenizer:
    """Return the tokenizer of ``facts`` and of ``held``, arguments of BertTokenizer that were found in ``what``.

    ``names`` may hold the name of a published model. Raises UsageError where two facts differ.
    """
    own = {name: held.get(name) for name in SETTINGS if name not in held.get("guessed", ())}
    if "strip_accents" in held and own["strip_accents"] is None:
        own["strip_accents"] = own.get("do_lower_case")
    facts = [*facts, Stated(what, own)]
    if own.get("do_lower_case") is None:
        facts += [Stated(name, {"do_lower_case": published_casing(name)}) for name in names]
    values = {"source": what, **held, **agreed(facts), "guessed": []}
    if all(fact.settings.get("do_lower_case") is None for fact in facts):
        casing = PUBLISHED_VOCABULARIES.get(fingerprint(held["vocab"]))
        values["do_lower_case"] = looks_uncased(held["vocab"]) if casing is None else casing
        values["guessed"] = ["do_lower_case"] * (casing is None)
    return BertTokenizer(**values)


def agreed(facts: Iterable[Stated]) -> dict[str, Any]:
    """Return the settings that somebody states; raises UsageError, naming both, where two state different values."""
    found: dict[str, tuple[str, Any]] = {}
    for what, settings in facts:
        for name, value in settings.items():
            if name in SETTINGS and value is not None:
                first, chosen = found.setdefault(name, (what, value))
                if chosen != value:
                    said = (
                        f"{first} {_spelled(chosen)}" if first == f"--{name}" else f"{first}: {name} {_spelled(chosen)}"
                    )
                    raise UsageError(f"{said}, but {what} has {name} {_spelled(value)}")
    return {name: value for name, (_, value) in found.items()}


def published_casing(name: str) -> bool | None:
    """Return whether the published model ``name`` is uncased; None if it is none."""
    return next((lower for pattern, lower in PUBLISHED if re.fullmatch(pattern, name)), None)


def guesses(tokenizer: BertTokenizer) -> str:
    """Return a notice of what is guessed, "" if nothing is."""
    found = [f"--{name} {_spelled(getattr(tokenizer, name))}" for name in tokenizer.guessed]
    return f"{', '.join(found)}: a guess from {tokenizer.source}; give the flag if it is wrong" if found else ""


def expect_same(tokenizer: BertTokenizer, what: str, other: Mapping[str, Any], other_what: str) -> None:
    """Raise UsageError, naming both values, where ``other``, a part of an identity, differs from ``tokenizer``."""
    key = tokenizer.difference(other)
    if key is None:
        return
    mine = tokenizer.identity
    if key == "vocab_sha256":
        raise UsageError(
            f"{what}: its vocabulary (SHA-256 {mine[key][:12]}..., {tokenizer.vocab_size} pieces) is not that of "
            f"{other_what} ({str(other[key])[:12]}..., {other.get('vocab_size', '?')} pieces)"
        )
    raise UsageError(f"{what}: {key} {_spelled(mine[key])}, but {other_what} has {key} {_spelled(other[key])}")


def _spelled(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
