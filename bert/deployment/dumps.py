"""Arrays of a data set as JSON files, in the form of NVIDIA's inference scripts.

``labels-000000000003.json`` is the fourth batch of the labels, an object for each sample::

    {"data": [{"output__0": {"content": [0.5, ...], "shape": [384], "dtype": "float32"}}, ...]}
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bert.config import load_json
from bert.errors import UsageError, naming_os_errors
from bert.files import replacing

PREFIXES = ("ids", "inputs", "labels", "outputs")
Arrays = dict[str, NDArray]


def write_dump(folder: Path, prefix: str, number: int, arrays: Arrays) -> None:
    """Write one batch."""
    samples = [
        {name: _written(row) for name, row in zip(arrays, rows, strict=True)}
        for rows in zip(*map(np.asarray, arrays.values()), strict=True)
    ]
    with naming_os_errors(f"--output-dir {folder}"), replacing(folder / f"{prefix}-{number:012d}.json") as temporary:
        temporary.write_text(json.dumps({"data": samples}), encoding="utf8")


def _written(row: Any) -> dict[str, Any]:
    row = np.asarray(row)
    content = [each.decode() if isinstance(each, bytes) else each for each in row.reshape(-1).tolist()]
    return {"content": content, "shape": list(row.shape), "dtype": row.dtype.name}


def read_dumps(folder: Path) -> Iterator[dict[str, Arrays]]:
    """Yield the batches, each {prefix: arrays}; raises UsageError where there is none or one is damaged."""
    files = sorted(folder.glob("outputs-*.json"))
    if not files:
        raise UsageError(f"--dump-dir {folder}: no outputs-*.json; run_inference_on_triton.py writes them")
    for file in files:
        paths = {prefix: file.with_name(file.name.replace("outputs", prefix, 1)) for prefix in PREFIXES}
        batch = {prefix: _read(path) for prefix, path in paths.items() if path.is_file()}
        if len({len(next(iter(arrays.values()))) for arrays in batch.values()}) > 1:
            raise UsageError(f"--dump-dir {folder}: dumps of batch {file.stem[-12:]} have different numbers of samples")
        yield batch


def _read(path: Path) -> Arrays:
    samples = load_json(path, "--dump-dir")
    try:
        rows = [{name: _array(value) for name, value in sample.items()} for sample in samples["data"]]
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"--dump-dir {path}: not a dump ({type(error).__name__}: {error})") from error


def _array(value: dict[str, Any]) -> NDArray:
    return np.array(value["content"], value["dtype"]).reshape(value["shape"])
