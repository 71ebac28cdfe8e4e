"""Dataclass ⇄ command-line flags ⇄ JSON.

A module declares its settings as a dataclass beside the code that they configure; an entry point nests those classes
in one of its own, and every leaf becomes a flag. Declaring a flag twice is an error, ``--a-b`` and ``--a_b`` are the
same flag, and a boolean takes an optional value (``--fp16``, ``--fp16=false``, ``--no_fp16``; ``auto`` is None)::

    @dataclass
    class Config:
        seed: int = flag(1, "Seed of all random numbers.", minimum=0)
        loader: LoaderConfig = field(default_factory=LoaderConfig)      # its fields are flags too

    run_command(main, Config)              # parses sys.argv and calls main(config)
"""

import argparse
import contextlib
import dataclasses
import json
import re
import sys
import types
import typing
from collections.abc import Callable, Container, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from bert.errors import UsageError, naming_os_errors

C = TypeVar("C")

BOOLEANS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


def flag(
    default: Any = dataclasses.MISSING,
    help: str = "",
    *,
    choices: Sequence[Any] | None = None,
    aliases: Sequence[str] = (),
    minimum: float | None = None,
    maximum: float | None = None,
) -> Any:
    """Declare a dataclass field that is a command-line flag.

    Without ``default`` the flag is required. ``aliases`` are further spellings (``"amp"``); ``minimum`` and ``maximum``
    are inclusive bounds, checked while parsing.
    """
    metadata = {"help": help, "choices": choices, "aliases": tuple(aliases), "minimum": minimum, "maximum": maximum}
    return dataclasses.field(default=default, metadata=metadata)


def parse_args(config_class: type[C], argv: Sequence[str] | None = None, description: str = "") -> C:
    """Build ``config_class`` from ``argv``; exits with code 2 and one line on a bad flag, as argparse does."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)  # None: a script
    parser = _Parser(
        prog=f"python -m {spec.parent}" if spec and spec.name.endswith("__main__") else None,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    seen: dict[str, str] = {}
    booleans: set[str] = set()
    for owner, f, kind in _leaves(config_class):
        for name in (f.name, *f.metadata.get("aliases", ())):
            if name in seen:
                raise TypeError(f"--{name} is declared by both {seen[name]} and {owner}.{f.name}")
            seen[name] = f"{owner}.{f.name}"
            if bool in (kind, *typing.get_args(kind)):
                booleans.add(name)
        _add_flag(parser, f, kind)
    required = [
        f"--{action.dest} {action.metavar or '|'.join(map(str, action.choices or ()))}"
        for action in parser._actions
        if action.required
    ]
    parser.usage = " ".join(["%(prog)s", *required, "[flag ...]"])
    arguments = [_underscored(word, seen, booleans) for word in (sys.argv[1:] if argv is None else argv)]
    return _build(config_class, vars(parser.parse_args(arguments)))


def run_command(main: Callable[[C], None], config_class: type[C], argv: Sequence[str] | None = None) -> None:
    """Parse the flags and run ``main``; a :class:`UsageError` becomes one line on stderr and exit code 2.

    ``--help`` shows the docstring of the script or, if it has none, of the module of ``main``.
    """
    description = (sys.modules["__main__"].__doc__ or sys.modules[main.__module__].__doc__ or "").strip()
    with one_line_errors():
        main(parse_args(config_class, argv, description))


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """End the process with one line: exit code 2 for a :class:`UsageError`, 130 for Ctrl-C."""
    try:
        yield
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def to_dict(config: Any) -> dict[str, Any]:
    """Return the flat ``{flag: value}`` of a (nested) config, fit for JSON and for a checkpoint."""
    flat: dict[str, Any] = {}
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if dataclasses.is_dataclass(value):
            flat.update(to_dict(value))
        else:
            flat[f.name] = str(value) if isinstance(value, Path) else value
    return flat


def parse_size(text: str, what: str) -> int:
    """Convert a size such as 512K, 4M or 1G to bytes, in powers of 1,024; ``what`` names the flag."""
    found = re.fullmatch(r"([0-9]+)([KMG]?)B?", text.upper())
    if not found or not int(found[1]):
        raise UsageError(f"{what} {text}: expected a size such as 512K, 4M or 1G")
    return int(found[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[found[2]]


def load_json(path: str | Path, what: str) -> dict[str, Any]:
    """Read a JSON object; ``what`` names the flag for the error line."""
    try:
        with naming_os_errors(f"{what} {path}"):
            value = json.loads(Path(path).read_bytes())  # UTF-8 or, as a byte-order mark may say, UTF-16
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{what} {path}: not a JSON file ({error})") from error
    if not isinstance(value, dict):
        raise UsageError(f"{what} {path}: expected a JSON object, found {type(value).__name__}")
    return value


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> typing.NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (--help lists the flags)\n")


def _leaves(config_class: type) -> Iterator[tuple[str, dataclasses.Field, Any]]:
    """Yield each flag's class, field and type."""
    hints = typing.get_type_hints(config_class)
    for f in dataclasses.fields(config_class):
        if dataclasses.is_dataclass(hints[f.name]):
            yield from _leaves(hints[f.name])
        else:
            yield config_class.__name__, f, hints[f.name]


def _build(config_class: type[C], values: dict[str, Any]) -> C:
    hints = typing.get_type_hints(config_class)
    arguments = {}
    for f in dataclasses.fields(config_class):  # type: ignore[arg-type]
        nested = dataclasses.is_dataclass(hints[f.name])
        arguments[f.name] = _build(hints[f.name], values) if nested else values[f.name]
    return config_class(**arguments)


def _add_flag(parser: argparse.ArgumentParser, f: dataclasses.Field, kind: Any) -> None:
    required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    optional = typing.get_origin(kind) in (typing.Union, types.UnionType)
    base = next(a for a in typing.get_args(kind) if a is not type(None)) if optional else kind
    options: dict[str, Any] = {"dest": f.name, "required": required, "choices": f.metadata.get("choices")}
    text = f.metadata.get("help", "")
    if not required:
        options["default"] = f.default if f.default is not dataclasses.MISSING else f.default_factory()  # type: ignore[misc]
        if options["default"] is not None:
            text += f" Default: {options['default']}."
    if base is bool:
        options |= {"nargs": "?", "const": True, "type": _boolean_or_auto if optional else _boolean, "metavar": "BOOL"}
    elif typing.get_origin(base) is list:
        options |= {"nargs": "+", "type": typing.get_args(base)[0], "metavar": f.name.upper()}
    else:
        options |= {"type": _bounded(base, f.metadata), "metavar": None if options["choices"] else f.name.upper()}
    options["help"] = text.replace("%", "%%").strip()
    parser.add_argument(*(f"--{name}" for name in (f.name, *f.metadata.get("aliases", ()))), **options)


def _underscored(word: str, known: Container[str], booleans: Container[str]) -> str:
    """Turn ``--json-summary=x`` into ``--json_summary=x``, the field's spelling, and ``--no-x`` into ``--x=false``."""
    name, equals, value = word.partition("=")
    plain = name[2:].replace("-", "_")
    if word.startswith("--no") and not equals and plain not in known:
        positive = next((each for each in (plain[3:], plain[2:]) if each in booleans), None)  # --no-x, and absl's --nox
        if positive:
            return f"--{positive}=false"
    return f"--{plain}{equals}{value}" if name.startswith("--") and plain in known else word


def _boolean(text: str) -> bool:
    try:
        return BOOLEANS[text.lower()]
    except KeyError:
        raise argparse.ArgumentTypeError(f"{text!r} is not true or false") from None


def _boolean_or_auto(text: str) -> bool | None:
    if text.lower() == "auto":
        return None
    if text.lower() not in BOOLEANS:
        raise argparse.ArgumentTypeError(f"{text!r} is not true, false, on, off or auto")
    return _boolean(text)


def _bounded(base: Callable[[str], Any], metadata: Any) -> Callable[[str], Any]:
    low, high = metadata.get("minimum"), metadata.get("maximum")

    def convert(text: str) -> Any:
        try:
            # NVIDIA's scripts pass whole numbers as floats (--max_steps 7038.0).
            value = int(float(text)) if base is int and float(text).is_integer() else base(text)
        except (ValueError, OverflowError):
            raise argparse.ArgumentTypeError(f"{text!r} is not {_KINDS.get(base, base.__name__)}") from None
        if (low is not None and not value >= low) or (high is not None and not value <= high):
            bounds = " and ".join([f"at least {low}"] * (low is not None) + [f"at most {high}"] * (high is not None))
            raise argparse.ArgumentTypeError(f"{value} is out of range: expected {bounds}")
        return value

    return convert


_KINDS = {int: "a whole number", float: "a number"}
