"""Draw the losses, held-out accuracies, learning rate and speed of a pre-training run, and print its final numbers.

python -m bert.report --logs results/phase1/dllogger.json results/phase2/dllogger.json --output report.png
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bert.config import flag, run_command
from bert.errors import UsageError
from bert.report import collect, draw, read_events, summarize

FORMATS = (".png", ".svg", ".pdf")


@dataclass
class ReportConfig:
    logs: list[str] = flag(help="dllogger.json files, phase 1 first.")
    output: str = flag("report.png", "The figure (.png, .svg or .pdf); the table goes beside it with the suffix .md.")


def main(config: ReportConfig) -> None:
    output = Path(config.output)
    if output.suffix not in FORMATS:
        raise UsageError(f"--output {output}: expected a file ending in {', '.join(FORMATS)}")
    phases = collect(event for path in config.logs for event in read_events(path))
    if not phases:
        raise UsageError(f"--logs {' '.join(config.logs)}: no training steps found, expected a dllogger.json of a run")
    table = summarize(phases)
    print(table, end="")
    try:
        _replace(output.with_suffix(".md"), lambda path: path.write_text(table, encoding="utf8"))
        figure = draw(phases)
        _replace(output, lambda path: figure.savefig(path, format=output.suffix[1:], dpi=130))
    except OSError as error:
        raise UsageError(f"--output {output}: {error.strerror or error}") from error


def _replace(path: Path, write: Callable[[Path], Any]) -> None:
    """Let ``write`` fill a temporary file, and rename it once it is on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    write(temporary)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)


if __name__ == "__main__":
    run_command(main, ReportConfig)
