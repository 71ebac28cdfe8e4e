"""A Wikipedia → text files, one article a line: the command ``download_wikipedia``, known from LDDL.

``OUTDIR/source/LANGUAGE/N.txt`` holds the articles of the N-th part of the dump, each as "wiki-<id> text". A part is
written whole or not at all, and a file that exists is skipped, so an interrupted run resumes::

    download_wikipedia(WikipediaConfig(outdir="wikipedia", language="simple"))
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from bert.config import flag, load_json, parse_size, run_command
from bert.download.dumps import check_language, dump_path, fetch_dump
from bert.download.fetch import Fetcher, TransferConfig, read_record
from bert.download.partial_file import locked
from bert.download.remote import FetchError
from bert.errors import UsageError, naming_os_errors
from bert.files import replacing
from bert.prepare.text.characters import report
from bert.prepare.text.wikidump import is_multistream, next_stream, read_articles
from bert.shards.pool import run_parallel

PLAN = ".plan.json"


@dataclass
class WikipediaConfig:
    """Which Wikipedia, and where to put it."""

    outdir: str = flag(help="Folder for the dump and, below source/LANGUAGE, its text.")
    language: str = flag(
        "en", "Which Wikipedia, by the code in its address, such as en, zh or simple.", aliases=["langs"]
    )
    extract_shard_size: str = flag("64M", "Bytes of the compressed dump for each text file, such as 64M.")
    num_workers: int = flag(
        0,
        "Processes that extract; 0 = one per core. The text is the same for any number.",
        aliases=["num_processes"],
        minimum=0,
    )
    transfer: TransferConfig = field(default_factory=TransferConfig)


class DumpPart(NamedTuple):
    """Bytes ``start`` to ``stop`` of a dump, and the file for their articles."""

    dump: Path
    start: int
    stop: int
    target: Path


def download_wikipedia(config: WikipediaConfig) -> None:
    """Fetch the dump unless it is there, and extract what is missing; exits with code 1 if it cannot be fetched."""
    check_language("--language", config.language)
    outdir, step = Path(config.outdir), parse_size(config.extract_shard_size, "--extract_shard_size")
    source = outdir / "source" / config.language
    try:
        with naming_os_errors(f"--outdir {outdir}"):
            fetch_dump(Fetcher(config.transfer), config.language, outdir)
            source.mkdir(parents=True, exist_ok=True)
            with locked(source) as is_mine:
                if not is_mine:
                    raise UsageError(f"--outdir {outdir}: another process is extracting to {source}")
                dump = dump_path(config.language, outdir)
                extract(dump, source, step, config.num_workers, show=not config.transfer.disable_progress_bar)
    except FetchError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


def extract(dump: Path, source: Path, step: int, num_workers: int, show: bool) -> None:
    """Write the articles of each ``step`` bytes of ``dump`` to a file in ``source``, unless that file exists."""
    _check_plan(dump, source, step)
    for left in source.glob(".*.txt"):  # of a run that was killed
        left.unlink()
    size = dump.stat().st_size
    starts = {next_stream(dump, position) for position in range(0, size, step)} if is_multistream(dump) else {0}
    cuts = sorted(starts | {size})
    parts = [DumpPart(dump, *cut, source / f"{number}.txt") for number, cut in enumerate(pairwise(cuts))]
    todo = [part for part in parts if not part.target.exists()]
    invalid: Counter[str] = Counter()
    for found in run_parallel(extract_part, todo, num_workers, description="Extracting", show=show):
        invalid += found
    report(invalid)
    print(f"{source}: {dump.name} as text, {len(todo)} files written, {len(parts) - len(todo)} already there")


def extract_part(part: DumpPart) -> Counter[str]:
    """Write the articles of one part; return how many characters of the dump were passed over."""
    invalid: Counter[str] = Counter()
    with replacing(part.target) as temporary, temporary.open("w", encoding="utf8", newline="\n") as file:
        for number, article in enumerate(read_articles(part.dump, part.start, part.stop, invalid)):
            if text := " ".join(article.split()):
                file.write(f"wiki-{part.target.stem}-{number} {text}\n")
    return invalid


def _check_plan(dump: Path, source: Path, step: int) -> None:
    """Record what the files in ``source`` were made from; raises UsageError if that was something else."""
    plan = {"dump": dump.name, "sha256": read_record(dump), "extract_shard_size": step}
    noted = source / PLAN
    if not noted.exists():
        with replacing(noted) as temporary:
            temporary.write_text(json.dumps(plan), encoding="utf8")
    elif load_json(noted, "--outdir") != plan:
        raise UsageError(
            f"--outdir: {source} was extracted from another dump or with another --extract_shard_size; remove it first"
        )


if __name__ == "__main__":
    run_command(download_wikipedia, WikipediaConfig)
