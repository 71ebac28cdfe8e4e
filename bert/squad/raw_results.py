"""The model's logits of all windows in a file, so that answers can be chosen again without running the model.

A ``.npy`` file with one record per window: ``unique_id`` [1] int64, ``start_logits`` and ``end_logits`` [L, 1] float32.
OneFlow's scripts can index it like their own files, but it contains no pickled objects::

    save_results("all_results.npy", results, max_seq_length=384)
    find_answers(examples, features, load_results("all_results.npy"), do_lower_case=True, config=AnswerConfig())
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bert.errors import UsageError, naming_os_errors
from bert.files import replacing
from bert.squad.answers import LARGEST, RawResult

FIELDS = RawResult._fields


def save_results(path: str | Path, results: Sequence[RawResult], max_seq_length: int) -> None:
    """Write ``results``, whole or not at all; logits missing at a window's end become very low."""
    shapes = [(np.int64, (1,)), *[(np.float32, (max_seq_length, 1))] * 2]
    records = np.empty(len(results), [(name, *shape) for name, shape in zip(FIELDS, shapes, strict=True)])
    for record, result in zip(records, results, strict=True):
        record[FIELDS[0]] = result.unique_id
        for name in FIELDS[1:]:
            values = np.ravel(getattr(result, name))
            missing = (0, max_seq_length - len(values))
            record[name][:, 0] = np.pad(values, missing, constant_values=-LARGEST)
    with naming_os_errors(str(path)), replacing(Path(path)) as temporary, temporary.open("wb") as file:
        np.save(file, records, allow_pickle=False)


def load_results(path: str | Path) -> list[RawResult]:
    """Read what :func:`save_results` wrote; raises UsageError for anything else, also pickles, which can run code."""
    with naming_os_errors(f"--all_results_file {path}"):
        try:
            records = np.load(path, allow_pickle=False)
            ids, starts, ends = (records[name].reshape(len(records), -1) for name in FIELDS)
        except (ValueError, EOFError, IndexError, KeyError, TypeError, AttributeError) as error:
            expected = f"expected an array of {', '.join(FIELDS)} without pickled objects"
            raise UsageError(f"--all_results_file {path}: {expected} ({error})") from error
    return [RawResult(*fields) for fields in zip(ids[:, 0].tolist(), starts, ends, strict=True)]
