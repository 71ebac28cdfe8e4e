"""Draw the losses, held-out accuracies, learning rate and speed of a pre-training run, and print its final numbers.

python -m bert.report --logs results/phase1/dllogger.json results/phase2/dllogger.json --output report.png
"""

from dataclasses import dataclass
from pathlib import Path

from bert.config import flag, run_command
from bert.errors import UsageError
from bert.files import replacing
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
        output.parent.mkdir(parents=True, exist_ok=True)
        with replacing(output.with_suffix(".md")) as temporary:
            temporary.write_text(table, encoding="utf8")
        with replacing(output) as temporary:
            draw(phases).savefig(temporary, format=output.suffix[1:], dpi=130)
    except OSError as error:
        raise UsageError(f"--output {output}: {error.strerror or error}") from error


if __name__ == "__main__":
    run_command(main, ReportConfig)
