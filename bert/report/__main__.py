"""Draw the losses, held-out accuracies, learning rate and speed of a pre-training run, and print its final numbers.

    python -m bert.report --logs results/phase1/dllogger.json results/phase2/dllogger.json --output report.png

Logs are read in the order given. Writes the figure and, beside it, the numbers as a Markdown table. --finetuned adds a
table that compares fine-tuning runs.
"""

from dataclasses import dataclass
from pathlib import Path

from bert.config import flag, run_command
from bert.errors import UsageError, naming_os_errors
from bert.files import replacing
from bert.report.events import Phase, collect, read_events
from bert.report.figure import draw
from bert.report.table import compare, summarize

FORMATS = (".png", ".svg", ".pdf")


@dataclass
class ReportConfig:
    logs: list[str] = flag(help="dllogger.json files, phase 1 first.")
    finetuned: list[str] | None = flag(None, "dllogger.json files of fine-tuning runs, to compare their scores.")
    output: str = flag(
        "report.png", "Figure to write (.png, .svg or .pdf); the table goes beside it, with the suffix .md."
    )


def main(config: ReportConfig) -> None:
    output = Path(config.output)
    if output.suffix not in FORMATS:
        raise UsageError(f"--output {output}: expected a file ending in {', '.join(FORMATS)}")
    phases = read_runs("--logs", config.logs)
    table = summarize(phases)
    if config.finetuned:
        table += "\n" + compare([run for path in config.finetuned for run in read_runs("--finetuned", [path])])
    print(table, end="")
    with naming_os_errors(f"--output {output}"):
        output.parent.mkdir(parents=True, exist_ok=True)
        with replacing(output.with_suffix(".md")) as temporary:
            temporary.write_text(table, encoding="utf8")
        with replacing(output) as temporary:
            draw(phases).savefig(temporary, format=output.suffix[1:], dpi=130)


def read_runs(flag: str, paths: list[str]) -> list[Phase]:
    """Return the phases in the logs; raises UsageError where they hold no training steps."""
    phases = collect(event for path in paths for event in read_events(path, flag))
    if not phases:
        raise UsageError(f"{flag} {' '.join(paths)}: no training steps found, expected a dllogger.json of a run")
    return phases


if __name__ == "__main__":
    run_command(main, ReportConfig)
