"""Preparing shards against LDDL's ``preprocess_bert_pretrain``: the same text, worker processes and settings.

    scripts/lddl_env.sh /tmp/lddl whole
    python benchmarks/preprocess.py --lddl_python /tmp/lddl/bin/python --masking

Whole commands run in turns (A B A B ...), from start to exit; of lddl also the time that it states for its pipeline
alone, without start and end. The text is LDDL's own kind of source, by default the documentation of the Python modules
on this machine. Memory is the most that all processes of a command held together, sampled; the last line repeats this
suite's run on several times the text.
"""

from __future__ import annotations

import os
import re
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bert.config import flag, run_command
from bert.errors import UsageError
from bert.prepare.vocabulary import VocabularyConfig, train_vocabulary

ROOT = Path(__file__).parents[1]
FILES = 8  # in the source folder
SHORTEST = 600  # characters of a document
SAMPLE_SECONDS = 0.25  # between two looks at the memory, each of which costs some milliseconds

# lddl splits sentences with NLTK's Punkt, whose published parameters cannot be fetched everywhere: train some.
TRAIN_PUNKT = """
import os, sys
from nltk.tokenize.punkt import PunktTrainer, save_punkt_params
trainer = PunktTrainer()
trainer.train(open(sys.argv[1], encoding="utf8").read(3_000_000))
folder = os.path.join(os.environ["NLTK_DATA"], "tokenizers", "punkt_tab", "english")
os.makedirs(folder)
save_punkt_params(trainer.get_params(), dir=folder)
"""


@dataclass
class PreprocessBenchmarkConfig:
    text_mb: float = flag(24.0, "Text, in millions of bytes.", minimum=0.1)
    times: int = flag(4, "Text of the run for memory, as a multiple; 1 = no such run.", minimum=1)
    target_seq_length: int = flag(128, "Longest sequence in pieces.", minimum=16)
    bin_size: int = flag(0, "Width of the bins of lengths; 0 = not binned.", minimum=0)
    masking: bool = flag(False, "Static masks.")
    duplicate_factor: int = flag(5, "Passes over the text.", minimum=1)
    num_workers: int = flag(2, "Worker processes of each.", minimum=1)
    rounds: int = flag(2, "Turns of each.", minimum=1)
    vocab_file: str | None = flag(None, "Vocabulary; without it, one of 30,000 pieces is trained on the text.")
    lddl_python: str = flag(
        os.environ.get("LDDL_PYTHON", ""), "Python that has lddl (scripts/lddl_env.sh); or the variable LDDL_PYTHON."
    )


@dataclass
class Result:
    seconds: float  # of the whole command
    memory: int  # bytes, the most of all processes together
    output: str


def main(config: PreprocessBenchmarkConfig) -> None:
    if not shutil.which(config.lddl_python):
        raise UsageError(f"--lddl_python {config.lddl_python!r}: expected a Python that has lddl (scripts/lddl_env.sh)")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size = write_source(folder / "source", config.text_mb * 1e6)
        vocab_file = config.vocab_file or str(folder / "vocab.txt")
        if config.vocab_file is None:
            train_vocabulary(VocabularyConfig([str(folder / "source")], vocab_file, 30000, disable_progress_bar=True))
        peer = {**alone(), "NLTK_DATA": str(folder / "nltk"), "PYTHONWARNINGS": "ignore"}
        train_punkt(config.lddl_python, folder, peer)
        flags = common_flags(config, vocab_file)
        turns = []
        for turn in range(config.rounds):
            ours = measure(our_command(config, folder / "source", folder / f"ours{turn}", flags), alone())
            theirs = measure(lddl_command(config, folder / "source", folder / f"lddl{turn}", flags, size), peer)
            turns.append((ours, theirs))
        report(config, size, turns)
        if config.times > 1:
            larger = write_copies(folder / "source", folder / "larger", config.times)
            result = measure(our_command(config, larger, folder / "larger_shards", flags), alone())
            memory = statistics.median(ours.memory for ours, _ in turns)
            print(
                f"this suite on {config.times} x the text: {size * config.times / result.seconds / 1e6:.2f} MB/s, "
                f"{result.memory / 1e6:,.0f} MB at the most, {result.memory / memory:.2f} x"
            )


def report(config: PreprocessBenchmarkConfig, size: int, turns: list[tuple[Result, Result]]) -> None:
    """Print speeds, memory and ratios."""
    kind = f"{'static' if config.masking else 'dynamic'} masks, " + (
        f"bins of {config.bin_size}" if config.bin_size else "not binned"
    )
    print(f"{size / 1e6:.1f} MB of text, {config.target_seq_length} tokens, {kind}, {config.num_workers} workers")
    print(f"{'':28}{'MB/s':>8}{'peak MB':>10}")
    rows = (("this suite", [a for a, _ in turns]), ("preprocess_bert_pretrain", [b for _, b in turns]))
    for name, results in rows:
        speed = statistics.median(size / 1e6 / result.seconds for result in results)
        memory = statistics.median(result.memory / 1e6 for result in results)
        print(f"{name:28}{speed:8.2f}{memory:10,.0f}")
    whole = statistics.median(theirs.seconds / ours.seconds for ours, theirs in turns)
    pipeline = statistics.median(pipeline_seconds(theirs) / ours.seconds for ours, theirs in turns)
    print(f"ratio of speeds: {whole:.1f} (whole commands), {pipeline:.1f} (against lddl's pipeline without its start)")


def pipeline_seconds(result: Result) -> float:
    found = re.search(r"Running the dask pipeline took ([0-9.]+) s", result.output)
    if not found:
        raise UsageError(f"--lddl_python: preprocess_bert_pretrain ended badly: {result.output[-500:]}")
    return float(found[1])


def common_flags(config: PreprocessBenchmarkConfig, vocab_file: str) -> list[str]:
    flags = ["--vocab-file", vocab_file, "--target-seq-length", str(config.target_seq_length), "--sample-ratio", "1.0"]
    flags += ["--duplicate-factor", str(config.duplicate_factor)]
    flags += ["--bin-size", str(config.bin_size)] * bool(config.bin_size)
    return [*flags, *(["--masking"] * config.masking)]


def our_command(config: PreprocessBenchmarkConfig, source: Path, sink: Path, flags: list[str]) -> list[str]:
    own = ["--wikipedia", str(source), "--sink", str(sink), "--local-n-workers", str(config.num_workers)]
    return [sys.executable, str(ROOT / "data" / "preprocess.py"), *own, *flags, "--disable-progress-bar"]


def lddl_command(config: PreprocessBenchmarkConfig, source: Path, sink: Path, flags: list[str], size: int) -> list[str]:
    programs = Path(config.lddl_python).parent
    ranks = ["--allow-run-as-root", "--oversubscribe", "-np", str(config.num_workers + 2)]
    blocks = max(config.num_workers * 2, round(size / (4 << 20)))  # as large as this suite's
    own = ["--wikipedia", str(source), "--sink", str(sink), "--num-blocks", str(blocks)]
    return [str(programs / "mpirun"), *ranks, str(programs / "preprocess_bert_pretrain"), *own, *flags]


def measure(arguments: list[str], environment: dict[str, str]) -> Result:
    """Run a command to its end, looking at the memory of all its processes."""
    with tempfile.TemporaryFile("w+") as output:
        begin = time.perf_counter()
        process = subprocess.Popen(arguments, stdout=output, stderr=subprocess.STDOUT, env=environment)
        most = 0
        while process.poll() is None:
            most = max(most, memory_of_tree(process.pid))
            time.sleep(SAMPLE_SECONDS)
        seconds = time.perf_counter() - begin
        output.seek(0)
        text = output.read()
    if process.returncode:
        raise UsageError(f"{' '.join(arguments[:3])} ended with code {process.returncode}: {text[-500:]}")
    return Result(seconds, most, text)


def memory_of_tree(pid: int) -> int:
    """Return the resident bytes of a process and its descendants; pages that they share count in each."""
    total = 0
    try:
        parent = psutil.Process(pid)
        processes = [parent, *parent.children(recursive=True)]
    except psutil.Error:
        return 0
    for process in processes:
        try:
            total += process.memory_info().rss
        except psutil.Error:
            continue  # ended in between
    return total


def write_source(folder: Path, size: float) -> int:
    """Write documents in LDDL's layout, ``en/*.txt`` of "id text" lines, and return their bytes."""
    language = folder / "en"
    language.mkdir(parents=True)
    written = 0
    files = [(language / f"part_{i}.txt").open("w", encoding="utf8") for i in range(FILES)]
    try:
        for number, document in enumerate(documents()):
            if written >= size:
                return written
            line = f"doc-{number} {document}\n"
            written += files[number % FILES].write(line)
    finally:
        for file in files:
            file.close()
    raise UsageError(f"--text_mb {size / 1e6:g}: the documentation on this machine holds only {written / 1e6:.1f}")


def documents() -> Iterator[str]:
    """Yield the documentation strings of a module, joined, for every Python module that is installed here."""
    seen: set[int] = set()
    for root in dict.fromkeys([sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), "/usr/lib"]):
        for path in sorted(Path(root).rglob("*.py")):
            try:
                strings = re.findall(r'"""(.*?)"""', path.read_text(encoding="utf8"), re.DOTALL)
            except (OSError, UnicodeDecodeError):
                continue
            text = " ".join(" ".join(string.split()) for string in strings if len(string) > 80)
            if len(text) > SHORTEST and hash(text) not in seen:
                seen.add(hash(text))
                yield text.encode("ascii", "ignore").decode()  # so that characters are bytes


def write_copies(source: Path, target: Path, times: int) -> Path:
    """Copy every file of ``source`` ``times`` times."""
    (target / "en").mkdir(parents=True)
    for path in sorted((source / "en").iterdir()):
        for copy in range(times):
            shutil.copy(path, target / "en" / f"{path.stem}_{copy}.txt")
    return target


def train_punkt(python: str, folder: Path, environment: dict[str, str]) -> None:
    Path(environment["NLTK_DATA"]).mkdir()
    sample = next((folder / "source" / "en").iterdir())
    subprocess.run([python, "-c", TRAIN_PUNKT, str(sample)], env=environment, check=True)


def alone() -> dict[str, str]:
    """The environment without what would put this suite's own packages before lddl's."""
    return {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}


if __name__ == "__main__":
    run_command(main, PreprocessBenchmarkConfig)
