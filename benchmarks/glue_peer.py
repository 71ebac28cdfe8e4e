"""GLUE as users of transformers run it, for the comparison in ``glue``: its Trainer on its own tokens.

Imports nothing of this suite, so that it can run in an environment of its own, with ``accelerate``::

    python benchmarks/glue_peer.py recipe.json      # writes predictions.json where the recipe says
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any


def main(recipe: dict[str, Any]) -> None:
    import numpy as np
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    set_seed(recipe["seed"])  # before the model, whose classifier is drawn
    train, dev = (read_rows(Path(recipe["data_dir"]) / f"{split}.tsv", recipe) for split in ("train", "dev"))
    labels = sorted({label for _, label in train})
    tokenizer = AutoTokenizer.from_pretrained(recipe["model"])
    model = AutoModelForSequenceClassification.from_pretrained(recipe["model"], num_labels=len(labels))

    def encode(rows: list[tuple[list[str], str]]) -> list[dict[str, Any]]:
        columns = list(zip(*(texts for texts, _ in rows), strict=True))
        encoded = tokenizer(*map(list, columns), truncation=True, max_length=recipe["max_seq_length"])
        kept = {name: encoded[name] for name in encoded}
        ids = [labels.index(label) for _, label in rows]
        return [{**{name: kept[name][i] for name in kept}, "labels": ids[i]} for i in range(len(rows))]

    arguments = TrainingArguments(
        recipe["output_dir"],
        num_train_epochs=recipe["epochs"],
        per_device_train_batch_size=recipe["batch_size"],
        learning_rate=recipe["learning_rate"],
        lr_scheduler_type="linear",
        warmup_steps=round(recipe["warmup_proportion"] * recipe["epochs"] * -(-len(train) // recipe["batch_size"])),
        weight_decay=recipe["weight_decay"],
        adam_epsilon=recipe["adam_eps"],
        max_grad_norm=recipe["max_grad_norm"],
        seed=recipe["seed"],
        use_cpu=True,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = Trainer(model, arguments, DataCollatorWithPadding(tokenizer), encode(train))
    trainer.train()
    logits: Any = trainer.predict(encode(dev)).predictions  # type: ignore[arg-type]
    predictions = json.dumps([labels[i] for i in np.argmax(logits, axis=1)])
    Path(recipe["output_dir"], "predictions.json").write_text(predictions, encoding="utf8")


def read_rows(path: Path, recipe: dict[str, Any]) -> list[tuple[list[str], str]]:
    """Return (texts, label) of each row; ``columns`` name those of a file without a header."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, recipe["columns"] or None, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [([row[name] for name in recipe["text"]], row[recipe["label"]]) for row in reader]


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf8")))
