"""The published files of MRPC → GLUE's train.tsv, dev.tsv and test.tsv.

GLUE may not distribute the Microsoft Research Paraphrase Corpus. Its pairs come from SentEval, and GLUE publishes which
training pairs form its dev set::

    build_mrpc([Path("msr_paraphrase_train.txt"), Path("msr_paraphrase_test.txt"), Path("mrpc_dev_ids.tsv")], folder)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bert.download.archives import ArchiveError

COLUMNS = ["Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"]


def build_mrpc(pieces: Sequence[Path], folder: Path) -> None:
    """Write the three files; raises ArchiveError if a file does not have the published form."""
    training, test, dev_ids = (_rows(path, columns) for path, columns in zip(pieces, (5, 5, 2), strict=True))
    dev = {tuple(row) for row in dev_ids}
    _write(folder / "train.tsv", COLUMNS, [row for row in training[1:] if (row[1], row[2]) not in dev])
    _write(folder / "dev.tsv", COLUMNS, [row for row in training[1:] if (row[1], row[2]) in dev])
    # GLUE's test set has no labels.
    _write(folder / "test.tsv", ["index", *COLUMNS[1:]], [[str(i), *row[1:]] for i, row in enumerate(test[1:])])


def _rows(path: Path, columns: int) -> list[list[str]]:
    """Read the tab-separated rows of a file, header included."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").split("\n")]
    except UnicodeDecodeError as error:
        raise ArchiveError(f"{path}: not UTF-8 text") from error
    rows = [line.split("\t") for line in lines if line]
    for number, row in enumerate(rows, 1):
        if len(row) != columns:
            raise ArchiveError(f"{path}: row {number} has {len(row)} columns, expected {columns}")
    return rows


def _write(path: Path, header: list[str], rows: list[list[str]]) -> None:
    path.write_text("".join("\t".join(row) + "\n" for row in [header, *rows]), encoding="utf8", newline="\n")
