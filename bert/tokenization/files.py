"""The files that describe a tokenizer: ``vocab.txt``, ``tokenizer.json`` and ``tokenizer_config.json``.

They are read as transformers reads them: ids and added tokens as they are in ``tokenizer.json``, settings from
``tokenizer_config.json`` first. Whatever is not BERT's WordPiece is refused by name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders
from tokenizers.processors import TemplateProcessing

from bert.config import load_json
from bert.errors import UsageError
from bert.files import replacing
from bert.tokenization.tokenizer import BertTokenizer
from bert.tokenization.vocabulary import CLS, MASK, PAD, SEP, SPECIAL_TOKENS, UNK, read_vocabulary

VOCABULARY, LIBRARY, SETTINGS, ADDED = "vocab.txt", "tokenizer.json", "tokenizer_config.json", "added_tokens.json"
ROLES = {"unk_token": UNK, "sep_token": SEP, "pad_token": PAD, "cls_token": CLS, "mask_token": MASK}
# Classes of transformers that cut text as BertTokenizer does.
WORD_PIECE_CLASSES = ("Bert", "DistilBert", "Electra", "MobileBert", "ConvBert", "PreTrained", "Tokenizers")
LARGEST_ID = 10_000_000
THEIR_KEYS = ("do_lower_case", "strip_accents", "tokenize_chinese_chars")
# Keys of our own, all or none: what transformers has no word for. never_split null: added tokens take its place.
OWN_KEYS = ("never_split", "source", "guessed")


def read_files(folder: Path, pretokenized: bool = False) -> dict[str, Any] | None:
    """Return what the files in ``folder`` say, by the names of BertTokenizer's arguments; None without a vocabulary.

    ``pretokenized`` says that the words are cut already, so another class of tokenizer does no harm.
    """
    library, settings = (_json_or_empty(folder / name) for name in (LIBRARY, SETTINGS))
    listed = folder / VOCABULARY
    if not library and not listed.is_file():
        if settings:
            _refuse_class(folder / SETTINGS, settings)
        return None
    if not pretokenized:
        _refuse_class(folder / SETTINGS, settings)
    found: dict[str, Any] = dict(_from_library(folder / LIBRARY, library)) if library else {}
    if listed.is_file():
        pieces = read_vocabulary(listed)
        if library:
            pieces = _expect_same_ids(listed, pieces, folder / LIBRARY, found["vocab"])
        found["vocab"] = pieces
    ours = all(name in settings for name in OWN_KEYS)
    for name in (*THEIR_KEYS, *((*OWN_KEYS, "pretokenized") if ours else ())):
        if settings.get(name) is not None:
            found[name] = settings[name]
    if ours and settings["never_split"] is not None:
        found["added_tokens"] = None
    elif library or settings or (folder / ADDED).is_file():
        found["added_tokens"] = [*found.get("added_tokens", ()), *_added_beside(folder, settings, found)]
    return found


def read_settings(vocab_file: Path) -> dict[str, Any]:
    """Return what stands beside a vocabulary of any name."""
    settings = _json_or_empty(settings_beside(vocab_file))
    names = (*THEIR_KEYS, "pretokenized", "max_input_chars_per_word")
    return {name: settings[name] for name in names if settings.get(name) is not None}


def settings_beside(vocab_file: Path) -> Path:
    """Return the file for the settings of a vocabulary: ``pieces.txt`` has ``pieces.tokenizer_config.json``."""
    name = SETTINGS if vocab_file.name == VOCABULARY else f"{vocab_file.stem}.{SETTINGS}"
    return vocab_file.with_name(name)


def write_tokenizer(folder: Path, tokenizer: BertTokenizer, longest: int) -> None:
    """Write the files from which transformers builds the same tokenizer, for inputs of at most ``longest`` tokens."""
    state = tokenizer.state_dict()
    library = Tokenizer.from_str(tokenizer.library.to_str())
    library.post_processor = TemplateProcessing(  # type: ignore[assignment]
        single=f"{CLS} $A {SEP}",
        pair=f"{CLS} $A {SEP} $B:1 {SEP}:1",
        special_tokens=[(CLS, tokenizer.cls_id), (SEP, tokenizer.sep_id)],
    )
    library.decoder = decoders.WordPiece()  # type: ignore[assignment]
    library.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL_TOKENS])
    # BertTokenizer of transformers has its own word splitter and length limit; the generic class keeps the file's.
    plain = not tokenizer.pretokenized and tokenizer.max_input_chars_per_word == 100
    own = {name: state[name] for name in OWN_KEYS}
    if tokenizer.added_tokens is not None:
        own["never_split"] = None
    values = {
        "tokenizer_class": "BertTokenizer" if plain else "PreTrainedTokenizerFast",
        "model_max_length": longest,
        **{name: state[name] for name in THEIR_KEYS},
        **ROLES,
        **own,
    }
    texts = {
        VOCABULARY: "\n".join(piece or "" for piece in state["vocab"]),
        LIBRARY: library.to_str(pretty=True),
        SETTINGS: json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False),
    }
    for name, text in texts.items():
        with replacing(folder / name) as temporary:
            temporary.write_text(f"{text}\n", encoding="utf8")


def _from_library(path: Path, values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the settings in a tokenizer.json; raises UsageError where it is another tokenizer than BERT's."""
    model, normalizer = values.get("model") or {}, values.get("normalizer") or {}
    splitter = (values.get("pre_tokenizer") or {}).get("type")
    expected = [
        ("model", model.get("type", "WordPiece"), "WordPiece"),
        ("unk_token", model.get("unk_token"), UNK),
        ("continuing_subword_prefix", model.get("continuing_subword_prefix"), "##"),
        ("normalizer", normalizer.get("type"), "BertNormalizer"),
        ("clean_text", normalizer.get("clean_text", True), True),
    ]
    for name, found, wanted in expected:
        if found != wanted:
            raise UsageError(f"{path}: {name} {found}; expected {wanted}, {HINT}")
    if splitter not in ("BertPreTokenizer", "WhitespaceSplit"):
        raise UsageError(f"{path}: pre_tokenizer {splitter}; expected BertPreTokenizer or WhitespaceSplit, {HINT}")
    yield "vocab", _by_id(path, model.get("vocab") or {})
    yield "max_input_chars_per_word", model.get("max_input_chars_per_word", 100)
    yield "do_lower_case", normalizer.get("lowercase", True)
    yield "strip_accents", normalizer.get("strip_accents")
    yield "tokenize_chinese_chars", normalizer.get("handle_chinese_chars", True)
    yield "pretokenized", splitter == "WhitespaceSplit"
    yield "added_tokens", values.get("added_tokens") or []


HINT = "BERT's; text that another tokenizer has cut into words needs --pretokenized"


def _by_id(path: Path, vocabulary: Mapping[str, int]) -> list[str | None]:
    last = max(vocabulary.values(), default=-1)
    if last > LARGEST_ID:
        raise UsageError(f"{path}: id {last}; expected at most {LARGEST_ID}")
    pieces: list[str | None] = [None] * (last + 1)
    for piece, index in vocabulary.items():
        if pieces[index] is not None:
            raise UsageError(f"{path}: {pieces[index]!r} and {piece!r} have the id {index}, expected ids of their own")
        pieces[index] = piece
    return pieces


def _expect_same_ids(listed: Path, pieces: list[str], library: Path, others: list[str | None]) -> list[str | None]:
    """Return the pieces of vocab.txt, which may be blank where tokenizer.json has none; raises UsageError."""
    ids = {piece: index for index, piece in enumerate(pieces)}
    for index, piece in enumerate(others):
        if piece and ids.get(piece) != index:
            line = f"line {ids[piece] + 1}" if piece in ids else "no line"
            raise UsageError(f"{library}: {piece!r} has the id {index}, but {listed} has it on {line}")
    return [piece or other for piece, other in zip_longest(pieces, others)]


def _refuse_class(path: Path, settings: Mapping[str, Any]) -> None:
    """Raise UsageError for a tokenizer that is not BERT's, or that is BERT's in part."""
    name = settings.get("tokenizer_class") or "BertTokenizer"
    if not any(name in (f"{each}Tokenizer", f"{each}TokenizerFast", f"{each}Backend") for each in WORD_PIECE_CLASSES):
        raise UsageError(f"{path}: tokenizer_class {name}; expected BertTokenizer, {HINT}")
    if settings.get("do_basic_tokenize") is False:
        raise UsageError(f"{path}: do_basic_tokenize false; expected true, {HINT}")
    for role, token in ROLES.items():
        found = _content(settings.get(role) or token)
        if found != token:
            raise UsageError(f"{path}: {role} {found}; expected {token}, BERT's")


def _added_beside(folder: Path, settings: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield tokens that tokenizer.json does not have, from the three other places where transformers keeps them."""
    known = {token["content"] for token in found.get("added_tokens", ())}
    pieces = {piece: index for index, piece in enumerate(found["vocab"]) if piece is not None}
    special = [_content(settings.get(role) or token) for role, token in ROLES.items()]
    extra = settings.get("extra_special_tokens") or settings.get("additional_special_tokens") or []
    named = [*special, *(_content(token) for token in (extra.values() if isinstance(extra, dict) else extra))]
    described = {t["content"]: t for t in (settings.get("added_tokens_decoder") or {}).values()}
    numbered = {t["content"]: int(i) for i, t in (settings.get("added_tokens_decoder") or {}).items()}
    plain = {} if described else _json_or_empty(folder / ADDED)  # the older file does not count beside the newer
    ids = {**plain, **numbered}
    after = max([len(pieces) - 1, *(token["id"] for token in found.get("added_tokens", ())), *ids.values()]) + 1
    for content in dict.fromkeys([*sorted(ids, key=ids.__getitem__), *named]):
        if content in known:
            continue
        index = ids.get(content, pieces.get(content, after))
        after = max(after, index + 1)
        is_special = content in named
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": not is_special}
        yield {**flags, "special": is_special, **described.get(content, {}), "id": index, "content": content}


def _content(token: Any) -> str:
    return token["content"] if isinstance(token, dict) else token


def _json_or_empty(path: Path) -> dict[str, Any]:
    return load_json(path, "the tokenizer's") if path.is_file() else {}
