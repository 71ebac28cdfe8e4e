"""data/create_datasets_from_start.sh, run with stand-ins for python and for the environment that setup.sh makes."""

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bert.config import parse_args
from bert.download.catalog import DATA_SETS
from bert.download.datasets import DownloadConfig, choose

ROOT = Path(__file__).resolve().parents[2]
VOCAB = f"{DATA_SETS['vocab'].folder}/vocab.txt"
PHASES = ("pretrain/phase1/unbinned/parquet", "pretrain/phase2/bin_size_64/parquet")

SETUP = """
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
fail() { echo "error: $1" >&2; exit 2; }
setup_environment() { echo "$*" >"$ROOT/extras"; PATH=$ROOT/bin:$PATH; }
"""

# Notes its arguments, leaves what the commands would, and fails where a word of them is in FAIL.
STAND_IN = f"""#!{sys.executable}
import json, os, sys
from pathlib import Path
words = sys.argv[1:]
with open("calls.jsonl", "a") as file:
    file.write(json.dumps(words) + "\\n")
for word, code in json.loads(os.environ.get("FAIL", "{{}}")).items():
    if word in words:
        sys.exit(code)
given = dict(zip(words, words[1:]))
if given.get("--dataset") == "vocab":
    vocab = Path(given["--output"]) / {VOCAB!r}
    vocab.parent.mkdir(parents=True, exist_ok=True)
    vocab.write_text("[PAD]")
if words[0] == "data/balance.py":
    shard = Path(given["--indir"]) / "shard-0.parquet"
    shard.parent.mkdir(parents=True, exist_ok=True)
    shard.write_text("")
"""


class Checkout:
    """A repository with the script and the stand-ins, under a name with a blank."""

    def __init__(self, root: Path):
        self.code, self.data = root / "my code", root / "the data"
        for name in ("data", "scripts", "bin"):
            (self.code / name).mkdir(parents=True)
        shutil.copy(ROOT / "data" / "create_datasets_from_start.sh", self.code / "data")
        (self.code / "scripts" / "setup.sh").write_text(SETUP)
        (self.code / "bin" / "python").write_text(STAND_IN)
        (self.code / "bin" / "python").chmod(0o755)

    def run(self, *words: str, fail: dict[str, int] | None = None, **more: str) -> subprocess.CompletedProcess[str]:
        kept = {k: v for k, v in os.environ.items() if k not in ("VOCAB_FILE", "LOWER_CASE")}
        environment = {**kept, "BERT_PREP_WORKING_DIR": str(self.data), "FAIL": json.dumps(fail or {}), **more}
        script = str(self.code / "data" / "create_datasets_from_start.sh")
        return subprocess.run(["bash", script, *words], env=environment, cwd=self.code, capture_output=True, text=True)

    def calls(self) -> list[list[str]]:
        """The commands since the last look."""
        noted = self.code / "calls.jsonl"
        lines = noted.read_text().splitlines() if noted.exists() else []
        noted.unlink(missing_ok=True)
        return [json.loads(line) for line in lines]


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path)


def expected(data: Path, source: list[str], shards: str = "256") -> list[list[str]]:
    """The commands for English that make the shards."""
    common = ["--vocab-file", f"{data}/{VOCAB}", "--lower-case", "true", "--target-seq-length"]
    one, two = (f"{data}/{phase}" for phase in PHASES)
    source = [*source, "--language", "en"]
    return [
        ["data/preprocess.py", *source, "--sink", one, *common, "128", "--masking"],
        ["data/balance.py", "--indir", one, "--num-shards", shards],
        ["data/preprocess.py", *source, "--sink", two, *common, "512", "--masking", "--bin-size", "64"],
        ["data/balance.py", "--indir", two, "--num-shards", shards],
    ]


def downloads(data: Path, *names: str, mirrors: tuple[str, ...] = ()) -> list[list[str]]:
    return [["data/download.py", "--dataset", name, "--output", str(data), *mirrors] for name in names]


ENGLISH = ("vocab", "squad", "glue", "uncased_L-24_H-1024_A-16")


def test_everything_in_order(checkout):
    result = checkout.run()
    assert result.returncode == 0, result.stderr
    data = checkout.data
    wiki = ["-m", "bert.download.wikipedia", "--outdir", f"{data}/wikipedia", "--language", "en"]
    source = ["--wikipedia", f"{data}/wikipedia/source/en"]
    assert checkout.calls() == [*downloads(data, *ENGLISH), wiki, *expected(data, source)]
    assert (checkout.code / "extras").read_text() == "prepare\n"
    assert result.stdout.endswith(f"everything is in {data}\n")


def test_the_data_sets_are_known():
    for name in (*ENGLISH, "multi_cased_L-12_H-768_A-12", "chinese_L-12_H-768_A-12"):
        assert set(choose([name])) <= set(DATA_SETS)
    argv = ["--dataset", "vocab", "--output", "/x", "--mirror", "http://a", "http://b"]
    assert parse_args(DownloadConfig, argv).transfer.mirror == ["http://a", "http://b"]


def test_the_folders_are_those_of_run_pretraining():
    script = (ROOT / "scripts" / "run_pretraining.sh").read_text()
    assert [re.search(rf"^DATA_DIR_PHASE{n} path \$prepared/(.*)/$", script, re.M)[1] for n in (1, 2)] == [*PHASES]
    assert f"$prepared/{VOCAB}" in script


def test_own_text_and_flags(checkout, tmp_path):
    (tmp_path / "my text").mkdir()
    result = checkout.run("--text", "../my text", "--num-shards", "7", "--mirror", "http://a", "--mirror", "http://b")
    assert result.returncode == 0, result.stderr
    text = ["--text", f"{checkout.code}/../my text"]
    mirrors = ("--mirror", "http://a", "http://b")
    assert checkout.calls() == [
        *downloads(checkout.data, *ENGLISH, mirrors=mirrors),
        *expected(checkout.data, text, "7"),
    ]


def test_without_wikipedia(checkout):
    assert checkout.run("--skip-wikipedia").returncode == 0
    assert checkout.calls() == downloads(checkout.data, *ENGLISH)


@pytest.mark.parametrize(
    ("language", "model", "lower_case"),
    [
        ("de", "multi_cased_L-12_H-768_A-12", "false"),
        ("zh", "chinese_L-12_H-768_A-12", "true"),
        ("simple", "uncased_L-24_H-1024_A-16", "true"),
    ],
)
def test_the_vocabulary_fits_the_language(checkout, language, model, lower_case):
    vocab = checkout.data / DATA_SETS[model].folder / "vocab.txt"
    vocab.parent.mkdir(parents=True)
    vocab.write_text("[PAD]")
    checkout.run("--language", language, fail={"vocab": 1})
    preprocess = next(call for call in checkout.calls() if call[0] == "data/preprocess.py")
    given = dict(itertools.pairwise(preprocess))
    assert (given["--vocab-file"], given["--lower-case"]) == (str(vocab), lower_case)
    assert given["--wikipedia"].endswith(f"/wikipedia/source/{language}") and given["--language"] == language


def test_another_vocabulary(checkout, tmp_path):
    (tmp_path / "v.txt").write_text("[PAD]")
    checkout.run("--language", "de", VOCAB_FILE="../v.txt", LOWER_CASE="true")
    preprocess = next(call for call in checkout.calls() if call[0] == "data/preprocess.py")
    given = dict(itertools.pairwise(preprocess))
    assert (given["--vocab-file"], given["--lower-case"]) == (f"{checkout.code}/../v.txt", "true")


def test_what_fails_is_listed_and_the_rest_is_done(checkout):
    result = checkout.run(fail={"glue": 1, "uncased_L-24_H-1024_A-16": 1})
    assert result.returncode == 1
    assert result.stderr.endswith("missing, for the reasons above:\n  glue\n  uncased_L-24_H-1024_A-16\n")
    assert len(checkout.calls()) == 9  # all the same


def test_without_a_vocabulary_there_are_no_shards(checkout):
    result = checkout.run(fail={"vocab": 1, "uncased_L-24_H-1024_A-16": 1})
    assert f"shards of both phases: there is no {checkout.data}/{VOCAB}" in result.stderr
    assert result.returncode == 1 and len(checkout.calls()) == 5


def test_without_wikipedia_text_there_are_no_shards(checkout):
    result = checkout.run(fail={"bert.download.wikipedia": 1})
    assert "  Wikipedia\n  shards of both phases: there is no text\n" in result.stderr
    assert result.returncode == 1 and len(checkout.calls()) == 5


def test_a_phase_that_fails_is_not_balanced_and_the_other_is_done(checkout):
    result = checkout.run(fail={"128": 2})
    assert result.stderr.endswith("  shards of phase 1\n") and result.returncode == 1
    assert [call[0] for call in checkout.calls()[5:]] == ["data/preprocess.py", "data/preprocess.py", "data/balance.py"]


def test_a_second_run_keeps_finished_shards(checkout):
    checkout.run(fail={"512": 1})
    checkout.calls()
    result = checkout.run()
    assert result.returncode == 0, result.stderr
    assert f"{checkout.data}/{PHASES[0]}: the shards of phase 1 are already there" in result.stdout
    assert [call[0] for call in checkout.calls()[5:]] == ["data/preprocess.py", "data/balance.py"]


def test_interrupted_balancing_is_completed(checkout):
    checkout.run()
    checkout.calls()
    (checkout.data / PHASES[1] / ".balance").mkdir()
    assert checkout.run().returncode == 0
    assert [call[0] for call in checkout.calls()[5:]] == ["data/balance.py"]


@pytest.mark.parametrize("code", [130, 143])
def test_ctrl_c_ends_everything(checkout, code):
    assert checkout.run(fail={"squad": code}).returncode == code
    assert len(checkout.calls()) == 2


def test_a_dry_run_only_prints(checkout):
    result = checkout.run("--dry-run", "--mirror", "http://a b")
    assert result.returncode == 0 and len(result.stdout.splitlines()) == 9
    assert "python data/preprocess.py --wikipedia" in result.stdout and r"http://a\ b" in result.stdout
    assert checkout.calls() == [] and not checkout.data.exists() and not (checkout.code / "extras").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--language"], "--language: expected a value after it"),
        (["--language", "--dry-run"], "--language: expected a value after it"),
        (["--language", "../x"], "--language ../x: expected the code of a Wikipedia"),
        (["--num-shards", "0"], "--num-shards 0: expected a whole number from 1"),
        (["--text", "nowhere"], "--text nowhere: no such file or directory"),
        (["--all"], "--all: unknown option"),
        (["wiki_books"], "wiki_books: unknown option"),
    ],
)
def test_refusals(checkout, words, message):
    result = checkout.run(*words)
    assert (result.returncode, result.stdout) == (2, "") and result.stderr.startswith(f"error: {message}")
    assert checkout.calls() == []


def test_a_vocabulary_that_is_not_there(checkout):
    result = checkout.run(VOCAB_FILE="nowhere")
    assert (result.returncode, result.stderr) == (2, "error: VOCAB_FILE=nowhere: no such file\n")


def test_help_lists_every_option(checkout):
    text = (ROOT / "data" / "create_datasets_from_start.sh").read_text()
    shown = checkout.run("--help").stdout
    for option in set(re.findall(r"--(?:language|text|skip-wikipedia|num-shards|mirror|dry-run)\b", text)):
        assert option in shown
    assert shown.startswith("Fetch and prepare everything") and "set -euo" not in shown


def test_shellcheck():
    found = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        pytest.skip("shellcheck is not installed")
    script = str(ROOT / "data" / "create_datasets_from_start.sh")
    done = subprocess.run([found, "--external-sources", script], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == ""
