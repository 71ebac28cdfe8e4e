"""Write an invented encyclopedia to pre-train a small BERT on, and facts to probe it with afterwards.

    python data/make_gazetteer.py --output data/encyclopedia

OUTPUT/train and OUTPUT/eval have one sentence per line and a blank line after each article; OUTPUT/facts.jsonl has one
masked statement per line. --tasks adds fine-tuning data about the same world: OUTPUT/squad in the formats of SQuAD 1.1
and 2.0, OUTPUT/glue in those of CoLA, MRPC, MNLI, RTE, STS-B, SST-2, QQP and QNLI.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bert.config import flag, run_command
from bert.errors import UsageError
from data.gazetteer import (
    GazetteerConfig,
    TasksConfig,
    articles,
    build_world,
    facts,
    load_templates,
    write_corpus,
    write_facts,
    write_tasks,
)


@dataclass
class Config:
    output: Path = flag(help="Output directory; text of an earlier run there is replaced.")
    gazetteer: GazetteerConfig = field(default_factory=GazetteerConfig)
    tasks: TasksConfig = field(default_factory=TasksConfig)


def main(config: Config) -> None:
    settings = config.gazetteer
    load_templates()
    world = build_world(settings.seed, settings.articles)
    try:
        counts = write_corpus(config.output, articles(world), settings.held_out_fraction, settings.files)
        probes = write_facts(config.output / "facts.jsonl", facts(world))
        examples = write_tasks(config.output, world, config.tasks) if config.tasks.tasks else {}
    except OSError as error:
        raise UsageError(f"--output {config.output}: {error.strerror or error}") from error
    print(f"{config.output}: {counts['train']} articles in train, {counts['eval']} in eval, {probes} facts")
    if examples:
        print("fine-tuning: " + ", ".join(f"{count} examples of {name}" for name, count in examples.items()))


if __name__ == "__main__":
    run_command(main, Config)
