"""Compare preparing shards with LDDL's ``preprocess_bert_pretrain``: same text, worker processes and settings.

    scripts/lddl_env.sh /tmp/lddl whole
    python benchmarks/preprocess.py --lddl_python /tmp/lddl/bin/python --masking

Whole commands run in turns (A B A B ...) and are timed from start to exit; a second ratio uses the time that lddl
reports for its pipeline alone. The text is the documentation of the Python modules on this machine, in LDDL's source
format. Memory is the sampled peak of all processes of a command together; the last line repeats this suite's run on
several times the text.
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

from benchmarks.lddl import check_python, clean_environment, describe_shards
from benchmarks.side_by_side import median_ratio, plural
from bert.config import flag, run_command
from bert.errors import UsageError
from bert.prepare.vocabulary import VocabularyConfig, train_vocabulary

ROOT = Path(__file__).resolve().parents[1]
FILES = 8  # in the source folder
SHORTEST = 600  # document, in characters
SAMPLE_SECONDS = 0.25  # between two samples of the memory, which take some milliseconds each

# lddl splits sentences with NLTK's Punkt. Its published parameters may be out of reach, so train some.
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
    text_mb: float = flag(24.0, "Amount of text in millions of bytes.", minimum=0.1)
    times: int = flag(
        4, "Repeat this suite's run on this many times the text to see how memory grows; 1 = skip.", minimum=1
    )
    target_seq_length: int = flag(128, "Maximum sequence length in pieces.", minimum=16)
    bin_size: int = flag(0, "Width of the bins of sequence lengths; 0 = no bins.", minimum=0)
    masking: bool = flag(False, "Write static masks.")
    duplicate_factor: int = flag(5, "Passes over the text.", minimum=1)
    num_workers: int = flag(2, "Worker processes of each contender.", minimum=1)
    rounds: int = flag(2, "Rounds; each command runs once per round.", minimum=1)
    vocab_file: str | None = flag(None, "Vocabulary; if omitted, 30,000 pieces are trained on the text.")
    lddl_python: str = flag(
        os.environ.get("LDDL_PYTHON", ""), "Python with lddl, as scripts/lddl_env.sh makes it; or set LDDL_PYTHON."
    )


@dataclass
class Result:
    seconds: float  # of the whole command
    memory: int  # bytes, peak of all processes together
    output: str


def main(config: PreprocessBenchmarkConfig) -> None:
    check_python(config.lddl_python)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size = write_source(folder / "source", config.text_mb * 1e6)
        vocab_file = config.vocab_file or str(folder / "vocab.txt")
        if config.vocab_file is None:
            train_vocabulary(VocabularyConfig([str(folder / "source")], vocab_file, 30000, disable_progress_bar=True))
        peer = {**clean_environment(), "NLTK_DATA": str(folder / "nltk"), "PYTHONWARNINGS": "ignore"}
        train_punkt(config.lddl_python, folder, peer)
        flags = common_flags(config, vocab_file)
        turns = []
        for turn in range(config.rounds):
            ours = measure(our_command(config, folder / "source", folder / f"ours{turn}", flags), clean_environment())
            theirs = measure(lddl_command(config, folder / "source", folder / f"lddl{turn}", flags, size), peer)
            turns.append((ours, theirs))
        report(config, size, turns)
        if config.times > 1:
            larger = write_copies(folder / "source", folder / "larger", config.times)
            result = measure(our_command(config, larger, folder / "larger_shards", flags), clean_environment())
            memory = statistics.median(ours.memory for ours, _ in turns)
            print(
                f"this suite on {config.times} x the text: {size * config.times / result.seconds / 1e6:.2f} MB/s, "
                f"peak memory {result.memory / 1e6:,.0f} MB, {result.memory / memory:.2f} x that of the runs above"
            )


def report(config: PreprocessBenchmarkConfig, size: int, turns: list[tuple[Result, Result]]) -> None:
    """Print the settings, speeds, memory and ratios."""
    kind = describe_shards(config.masking, config.bin_size)
    runs = f"{plural(config.num_workers, 'worker')}, {plural(config.rounds, 'round')}"
    print(f"{size / 1e6:.1f} MB of text, up to {config.target_seq_length} tokens, {kind}, {runs}\n")
    print("| command | MB/s | peak memory, MB |\n|---|---:|---:|")
    ours, theirs = zip(*turns, strict=True)
    for name, results in (("this suite", ours), ("preprocess_bert_pretrain", theirs)):
        speed = statistics.median(size / 1e6 / result.seconds for result in results)
        memory = statistics.median(result.memory / 1e6 for result in results)
        print(f"| {name} | {speed:.2f} | {memory:,.0f} |")
    our_seconds = [result.seconds for result in ours]
    whole = median_ratio([result.seconds for result in theirs], our_seconds)
    pipeline = median_ratio([pipeline_seconds(result) for result in theirs], our_seconds)
    print(f"\nthis suite is faster by {whole:.1f} x; {pipeline:.1f} x compared with lddl's pipeline alone")


def pipeline_seconds(result: Result) -> float:
    """Return the time that lddl printed for its pipeline, without starting and stopping the workers."""
    found = re.search(r"Running the dask pipeline took ([0-9.]+) s", result.output)
    if not found:
        raise UsageError(f"--lddl_python: preprocess_bert_pretrain did not finish: {result.output[-500:]}")
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
    blocks = max(config.num_workers * 2, round(size / (4 << 20)))  # as large as this suite's blocks
    own = ["--wikipedia", str(source), "--sink", str(sink), "--num-blocks", str(blocks)]
    return [str(programs / "mpirun"), *ranks, str(programs / "preprocess_bert_pretrain"), *own, *flags]


def measure(arguments: list[str], environment: dict[str, str]) -> Result:
    """Run a command and sample the memory of all its processes."""
    with tempfile.TemporaryFile("w+") as output:
        begin = time.perf_counter()
        process = subprocess.Popen(arguments, stdout=output, stderr=subprocess.STDOUT, env=environment)
        peak = 0
        while process.poll() is None:
            peak = max(peak, memory_of_tree(process.pid))
            time.sleep(SAMPLE_SECONDS)
        seconds = time.perf_counter() - begin
        output.seek(0)
        text = output.read()
    if process.returncode:
        raise UsageError(f"{' '.join(arguments[:3])} exited with code {process.returncode}: {text[-500:]}")
    return Result(seconds, peak, text)


def memory_of_tree(pid: int) -> int:
    """Return the resident bytes of a process and its descendants; shared pages count once per process."""
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
            continue  # it has just exited
    return total


def write_source(folder: Path, size: float) -> int:
    """Write documents in LDDL's format, "id text" lines in ``en/*.txt``, and return their size in bytes."""
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
    raise UsageError(
        f"--text_mb {size / 1e6:g}: expected at most {written / 1e6:.1f}, all documentation on this machine"
    )


def documents() -> Iterator[str]:
    """Yield the joined docstrings of each Python module installed on this machine."""
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
                yield text.encode("ascii", "ignore").decode()  # so that a character is a byte


def write_copies(source: Path, target: Path, times: int) -> Path:
    """Copy every file of ``source`` ``times`` times."""
    (target / "en").mkdir(parents=True)
    for path in sorted((source / "en").iterdir()):
        for copy in range(times):
            shutil.copy(path, target / "en" / f"{path.stem}_{copy}.txt")
    return target


def train_punkt(python: str, folder: Path, environment: dict[str, str]) -> None:
    """Train Punkt on part of the text, under lddl's Python."""
    Path(environment["NLTK_DATA"]).mkdir()
    sample = next((folder / "source" / "en").iterdir())
    subprocess.run([python, "-c", TRAIN_PUNKT, str(sample)], env=environment, check=True)


if __name__ == "__main__":
    run_command(main, PreprocessBenchmarkConfig)
