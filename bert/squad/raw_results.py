"""The model's logits of all windows as a file, so that answers can be chosen again without the model.

A ``.npy`` file with one record a window: ``unique_id`` [1] int64, ``start_logits`` and ``end_logits`` [L, 1] float32.
The scripts for OneFlow index it as they do their own files, but it holds no pickled objects::

    save_results("all_results.npy", results, max_seq_length=384)
    find_answers(examples, features, load_results("all_results.npy"), do_lower_case=True, config=AnswerConfig())
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bert.errors import UsageError
from bert.files import replacing
from bert.squad.answers import LARGEST, RawResult

FIELDS = RawResult._fields


def save_results(path: str | Path, results: Sequence[RawResult], max_seq_length: int) -> None:
    """Write ``results``, whole or not at all; logits that are missing at a window's end are made very low."""
    shape = (max_seq_length, 1)
    kinds = [(FIELDS[0], np.int64, (1,)), (FIELDS[1], np.float32, shape), (FIELDS[2], np.float32, shape)]
    records = np.empty(len(results), np.dtype(kinds))
    for name in FIELDS[1:]:
        records[name] = -LARGEST
    for record, result in zip(records, results, strict=True):
        record[FIELDS[0]] = result.unique_id
        for name in FIELDS[1:]:
            values = np.reshape(getattr(result, name), (-1, 1))
            record[name][: len(values)] = values
    try:
        with replacing(Path(path)) as temporary, temporary.open("wb") as file:
            np.save(file, records, allow_pickle=False)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from error


def load_results(path: str | Path) -> list[RawResult]:
    """Read what :func:`save_results` wrote; raises UsageError, also for pickled objects, which could run code."""
    try:
        records = np.load(path, allow_pickle=False)
        ids, starts, ends = (records[name].reshape(len(records), -1) for name in FIELDS)
    except OSError as error:
        raise UsageError(f"--all_results_file {path}: {error.strerror or error}") from error
    except (ValueError, EOFError, IndexError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"--all_results_file {path}: expected an array of {', '.join(FIELDS)} without pickled objects ({error})"
        ) from error
    return [RawResult(*fields) for fields in zip(ids[:, 0].tolist(), starts, ends, strict=True)]
