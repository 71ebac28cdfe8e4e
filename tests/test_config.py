"""Flags from dataclasses: spelling, types, bounds, and how a command ends on bad input."""

from dataclasses import dataclass, field

import pytest

from bert.config import flag, load_json, parse_args, parse_size, run_command, to_dict
from bert.errors import UsageError


@dataclass
class Inner:
    json_summary: str = flag("log.json", "Log file.")
    num_workers: int = flag(4, "Threads.", minimum=0, maximum=64)


@dataclass
class Outer:
    input_dir: str = flag(help="Shards.")
    fp16: bool = flag(False, "Half precision.", aliases=("amp",))
    rate: float = flag(5e-5, "100% of it.")
    init: str | None = flag(None, "Weights.")
    mode: str = flag("auto", "Choice.", choices=("auto", "on"))
    files: list[str] = flag(None, "Several.")
    inner: Inner = field(default_factory=Inner)


def parse(*words: str) -> Outer:
    return parse_args(Outer, ["--input_dir", "x", *words])


def test_defaults_and_nesting():
    assert parse() == Outer("x", False, 5e-5, None, "auto", None, Inner("log.json", 4))


@pytest.mark.parametrize(
    "words,name,value",
    [
        (["--fp16"], "fp16", True),
        (["--amp"], "fp16", True),
        (["--fp16=False"], "fp16", False),
        (["--fp16", "true"], "fp16", True),
        (["--fp16", "--no-fp16"], "fp16", False),
        (["--amp", "--no_amp"], "fp16", False),
        (["--fp16", "--nofp16"], "fp16", False),
        (["--rate", "1e-3"], "rate", 1e-3),
        (["--init", "a.pt"], "init", "a.pt"),
        (["--files", "a", "b"], "files", ["a", "b"]),
        (["--json-summary=a-b.json"], "json_summary", "a-b.json"),
        (["--json_summary", "c"], "json_summary", "c"),
        (["--num-workers", "2.0"], "num_workers", 2),
    ],
)
def test_spellings_and_types(words, name, value):
    assert to_dict(parse(*words))[name] == value


@pytest.mark.parametrize(
    "words,message",
    [
        (["--num_workers", "-1"], "argument --num_workers: -1 is out of range: expected at least 0 and at most 64"),
        (["--num_workers", "many"], "argument --num_workers: 'many' is not a whole number"),
        (["--num_workers", "2.5"], "argument --num_workers: '2.5' is not a whole number"),
        (["--rate", "fast"], "argument --rate: 'fast' is not a number"),
        (["--fp16", "maybe"], "argument --fp16/--amp: 'maybe' is not true or false"),
        (["--mode", "off"], "argument --mode: invalid choice: 'off'"),
        (["--inputdir", "y"], "unrecognized arguments: --inputdir"),
    ],
)
def test_a_bad_flag_is_one_line_and_exit_code_2(capsys, words, message):
    with pytest.raises(SystemExit) as exit:
        parse(*words)
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert exit.value.code == 2 and message in line


def test_a_missing_required_flag_is_named(capsys):
    with pytest.raises(SystemExit):
        parse_args(Outer, [])
    assert "required: --input_dir" in capsys.readouterr().err


def test_help_shows_text_defaults_and_required_flags(capsys):
    with pytest.raises(SystemExit) as exit:
        parse_args(Outer, ["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert exit.value.code == 0
    assert "--input_dir INPUT_DIR [flag ...]" in text and "100% of it. Default: 5e-05." in text


def test_a_flag_declared_twice_is_a_programming_error():
    @dataclass
    class Twice:
        amp: bool = flag(False, "")
        inner: Outer = field(default_factory=lambda: Outer("x"))

    with pytest.raises(TypeError, match="--amp is declared by both Twice.amp and Outer.fp16"):
        parse_args(Twice, [])


def test_to_dict_is_flat():
    assert to_dict(parse("--num_workers", "1")) == {
        "input_dir": "x",
        "fp16": False,
        "rate": 5e-5,
        "init": None,
        "mode": "auto",
        "files": None,
        "json_summary": "log.json",
        "num_workers": 1,
    }


@pytest.mark.parametrize(
    "error,code,line", [(UsageError("--x 1: no"), 2, "error: --x 1: no"), (KeyboardInterrupt(), 130, "interrupted")]
)
def test_how_a_command_ends(capsys, error, code, line):
    def main(config: Outer) -> None:
        raise error

    with pytest.raises(SystemExit) as exit:
        run_command(main, Outer, ["--input_dir", "x"])
    assert exit.value.code == code and capsys.readouterr().err.strip() == line


def test_json_errors_name_the_flag_and_the_file(tmp_path):
    with pytest.raises(UsageError, match=f"--config_file {tmp_path}/none: No such file"):
        load_json(tmp_path / "none", "--config_file")
    path = tmp_path / "a.json"
    for encoding in ("utf8", "utf-8-sig", "utf-16"):
        path.write_text('{"ö": 1}', encoding=encoding)
        assert load_json(path, "SQuAD file") == {"ö": 1}
    for data in (b'{"a": "\xff"}', b"\xff\xfe{", b"[" * 100_000, b""):
        path.write_bytes(data)
        with pytest.raises(UsageError, match=f"^SQuAD file {path}: not a JSON file "):
            load_json(path, "SQuAD file")


@pytest.mark.parametrize(("text", "bytes_"), [("7", 7), ("512K", 524288), ("4m", 4194304), ("1GB", 1073741824)])
def test_sizes(text, bytes_):
    assert parse_size(text, "--block_size") == bytes_


@pytest.mark.parametrize("text", ["", "0", "4X", "-1", "1.5G", "K"])
def test_sizes_that_are_none(text):
    with pytest.raises(UsageError, match="--block_size .*: expected a size such as 512K, 4M or 1G"):
        parse_size(text, "--block_size")
