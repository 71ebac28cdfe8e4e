"""Python files that a command line names, and the flags that come from them.

    make = load_symbol("triton/dataloader.py", "get_dataloader_fn", "--dataloader")
    add_signature_flags(parser, make)                   # --batch-size 8, --predict-file '' ...
    batches = call_with(make, parser.parse_args())

Loading a file runs it.
"""

from __future__ import annotations

import argparse
import importlib.util
import inspect
import sys
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bert.config import BOOLEANS, one_line_errors
from bert.errors import UsageError


def load_symbol(path: str, name: str, what: str, required: bool = True) -> Any:
    """Run the Python file ``path`` and return its ``name``; ``what`` is the flag, for messages."""
    file = Path(path)
    if not file.is_file():
        raise UsageError(f"{what} {path}: no such file")
    spec = importlib.util.spec_from_file_location(f"plugin_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise UsageError(f"{what} {path}: expected a Python file")
    module = importlib.util.module_from_spec(spec)
    before = list(sys.path)
    sys.path.append(str(file.resolve().parent))  # last: a file there must not hide a package
    try:
        spec.loader.exec_module(module)
    except ImportError as error:
        raise UsageError(f"{what} {path}: {error}") from error
    finally:
        sys.path[:] = before
    if required and not hasattr(module, name):
        raise UsageError(f"{what} {path}: it defines no {name}")
    return getattr(module, name, None)


def add_signature_flags(parser: argparse.ArgumentParser, function: Callable[..., Any]) -> None:
    """Add a flag for every parameter of ``function`` that the parser has not; one without a default is required."""
    known = {action.dest for action in parser._actions}
    for parameter, kind in _parameters(function):
        if parameter.name in known:
            continue
        options: dict[str, Any] = {"type": kind}
        if parameter.default is parameter.empty:
            options["required"] = True
        else:
            options |= {"default": parameter.default, "help": f"Default: {parameter.default!r}."}
        if kind is bool:
            options |= {"type": boolean, "nargs": "?", "const": True, "metavar": "BOOL"}
        parser.add_argument(*spellings(parameter.name), dest=parameter.name, **options)


def spellings(name: str) -> list[str]:
    """--max-seq-length and --max_seq_length."""
    return list(dict.fromkeys([f"--{name.replace('_', '-')}", f"--{name}"]))


def boolean(text: str) -> bool:
    if text.lower() not in BOOLEANS:
        raise argparse.ArgumentTypeError(f"{text!r} is not true or false")
    return BOOLEANS[text.lower()]


def call_with(function: Callable[..., Any], args: argparse.Namespace) -> Any:
    """Call ``function`` with those of the flags that it takes; ``**kwargs`` takes them all."""
    values = vars(args)
    if any(each.kind is each.VAR_KEYWORD for each in inspect.signature(function).parameters.values()):
        return function(**values)
    return function(**{each.name: values[each.name] for each, _ in _parameters(function)})


def _parameters(function: Callable[..., Any]) -> list[tuple[inspect.Parameter, Any]]:
    """Return the named parameters of a function or class, each with the type that its flag has."""
    hints = typing.get_type_hints(function.__init__ if inspect.isclass(function) else function)
    return [
        (each, _type(hints.get(each.name), each.default))
        for each in inspect.signature(function).parameters.values()
        if each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)
    ]


def _type(hint: Any, default: Any) -> Any:
    kinds = [kind for kind in (typing.get_args(hint) or (hint,)) if kind in (bool, int, float, str)]
    if kinds:
        return kinds[0]
    return type(default) if isinstance(default, bool | int | float) else str


class Parser(argparse.ArgumentParser):
    """A parser whose flags may come from the files that other flags name; errors are one line, exit code 2."""

    def __init__(self, description: str | None) -> None:
        formatter = argparse.RawDescriptionHelpFormatter
        super().__init__(description=description, formatter_class=formatter, allow_abbrev=False, add_help=False)

    def load(self, path: str, name: str, what: str) -> Any:
        """Return a function or class of a file, after adding the flags of its parameters."""
        symbol = load_symbol(path, name, what)
        add_signature_flags(self, symbol)
        return symbol

    def first(self, argv: Sequence[str] | None = None) -> argparse.Namespace:
        """Parse the flags known so far; --help waits unless they cannot be parsed."""
        words = sys.argv[1:] if argv is None else argv
        if {"-h", "--help"} & set(words):
            required = [action for action in self._actions if action.required]
            for action in required:
                action.required = False
            args, _ = self.parse_known_args(words)
            if any(getattr(args, action.dest) is None for action in required):
                self.last(argv)
            return args
        return self.parse_known_args(words)[0]

    def last(self, argv: Sequence[str] | None = None, ignore_unknown: bool = False) -> argparse.Namespace:
        """Parse all flags."""
        self.add_argument("-h", "--help", action="help", help="Show this and exit.")
        return self.parse_known_args(argv)[0] if ignore_unknown else self.parse_args(argv)

    def error(self, message: str) -> typing.NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (--help lists the flags)\n")


def run_script(main: Callable[[], None]) -> None:
    """Run ``main``; a :class:`UsageError` becomes one line on stderr and exit code 2."""
    with one_line_errors():
        main()
