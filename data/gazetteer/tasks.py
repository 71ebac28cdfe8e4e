"""Fine-tuning data about the same world, to show what pre-training on the articles gains."""

from dataclasses import dataclass
from pathlib import Path

from bert.config import flag

from .glue_files import write_glue
from .questions import write_squad
from .world import InventedWorld


@dataclass
class TasksConfig:
    """Whether to write fine-tuning data, and how much."""

    tasks: bool = flag(False, "Also write fine-tuning data: questions to squad/, sentence tasks to glue/.")
    questions: int = flag(3, "Questions per context in squad/; v2.0 adds half as many impossible ones.", minimum=1)
    train_rows: int = flag(3000, "Maximum rows of train.tsv of each task in glue/.", minimum=3)
    held_out_rows: int = flag(400, "Maximum rows of dev.tsv and of test.tsv of each task in glue/.", minimum=3)


def write_tasks(directory: str | Path, world: InventedWorld, config: TasksConfig) -> dict[str, int]:
    """Write ``squad/`` and ``glue/`` below ``directory``; return the number of training examples of each task."""
    questions = write_squad(Path(directory) / "squad", world, config.questions)
    rows = write_glue(Path(directory) / "glue", world, config.train_rows, config.held_out_rows)
    return {"SQuAD": questions["train"], **rows}
