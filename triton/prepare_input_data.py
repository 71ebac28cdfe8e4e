"""Write inputs for perf_analyzer to data.json, with the flags of NVIDIA's script of this name.

    python triton/prepare_input_data.py --input-data-dir input_data --dataloader triton/dataloader.py \\
        --predict-file dev-v1.1.json --vocab-file vocab.txt
    python triton/prepare_input_data.py --input-data-dir input_data --form text --predict-file dev-v1.1.json

--form padded is NVIDIA's. ragged holds the real tokens alone, each sample with its own length. text is for bert_qa.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parents[1])

from bert.deployment.perf import write_data
from bert.deployment.plugin import Parser, call_with, run_script, spellings
from bert.deployment.questions import Batch
from bert.errors import UsageError
from bert.squad.examples import load_dataset, paragraphs

TEXT_ROWS = 10_000  # at least one for each question
MOST = 20  # answers to one question


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--dataloader", help="Python file with get_dataloader_fn; needed but for text.")
    parser.add_argument(*spellings("input_data_dir"), required=True, help="Folder for data.json.")
    parser.add_argument("--form", choices=("padded", "ragged", "text"), default="padded", help="Default: padded.")
    parser.add_argument("-v", "--verbose", action="store_true", help="Ignored.")
    first = parser.first()
    if first.form == "text":
        parser.add_argument(*spellings("predict_file"), required=True, help="SQuAD file.")
        data = texts(parser.last().predict_file)
    elif first.dataloader is None:
        raise UsageError("--dataloader: needed, expected a Python file with get_dataloader_fn")
    else:
        make = parser.load(first.dataloader, "get_dataloader_fn", "--dataloader")
        args = parser.last()
        data = [sample for batch in call_with(make, args)() for sample in samples(batch, args.form == "ragged")]
    path = Path(first.input_data_dir, "data.json")
    write_data({"data": data}, path)
    print(f"{len(data)} samples: {path}")


def samples(batch: Batch, ragged: bool) -> Iterator[dict[str, Any]]:
    names, arrays = list(batch[1]), list(batch[1].values())
    for rows in zip(*arrays, strict=True):
        if ragged:
            real = rows[names.index("input__2")] != 0
            cut = [row[real].tolist() for row in rows]
            yield {name: {"content": row, "shape": [len(row)]} for name, row in zip(names, cut, strict=True)}
        else:
            yield {name: row.tolist() for name, row in zip(names, rows, strict=True)}


def texts(path: str) -> list[dict[str, Any]]:
    """Return questions and contexts. Each comes with several n_best, so that no cache knows it from before."""
    asked = [
        {"question": [question["question"]], "context": [part.context]}
        for part in paragraphs(load_dataset(path), path)
        for _, question in part.questions
    ]
    copies = min(MOST, max(1, TEXT_ROWS // len(asked)))
    return [{**each, "n_best": [number]} for number in range(1, copies + 1) for each in asked]


if __name__ == "__main__":
    run_script(main)
