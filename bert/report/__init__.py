"""What a run did, drawn from its logs: losses, held-out accuracy, learning rate and speed of both phases.

    python -m bert.report --logs results/phase1/dllogger.json results/phase2/dllogger.json --output report.png

draws report.png and writes report.md, the final numbers as a table, which is also printed. Logs are read in the order
given. --finetuned adds a table of fine-tuning runs, side by side.
"""

from bert.report.events import Phase, collect, read_events
from bert.report.figure import draw
from bert.report.table import compare, summarize

__all__ = ["Phase", "collect", "compare", "draw", "read_events", "summarize"]
