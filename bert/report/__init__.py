"""A report of a run from its logs: losses, held-out accuracy, learning rate and speed of both phases.

    python -m bert.report --logs results/phase1/dllogger.json results/phase2/dllogger.json --output report.png

draws report.png, writes the final numbers as a table to report.md and prints it. Logs are read in the order given.
--finetuned adds a table that compares fine-tuning runs.
"""

from bert.report.events import Phase, collect, read_events
from bert.report.figure import draw
from bert.report.table import compare, summarize

__all__ = ["Phase", "collect", "compare", "draw", "read_events", "summarize"]
