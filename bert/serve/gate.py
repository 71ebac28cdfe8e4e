"""The parity gate: an exported model must equal the trained one before anything is served.

Each case is a batch of sequences of random pieces and segment ids. The reference runs the trained model in fp32, one
sequence at a time, with the attention of the equation; the engine runs all at once. A model whose inputs were swapped,
whose positions are off or whose sequences see each other fails by far: bounds are a fraction of the largest output.

    for row in check_parity(served, load_engine(folder)):
        print(row)                      # one sequence: largest difference 1.2e-06, bound 1.7e-04
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bert.batch import TokenStream
from bert.ragged import columns_of, offsets_of
from bert.serve.requests import Request, pack, unpack
from bert.serve.tasks import Served

# Largest difference by number format, as a fraction of the largest output of all cases: one case may hold a single
# logit near zero. bf16 and int8 may differ widely, so the same model passes in fp32 first; what they cost is measured
# in F1.
BOUNDS = {"fp32": 2e-5, "fp16": 1e-2, "bf16": 6e-2, "int8": 3e-1}


@dataclass(frozen=True)
class Parity:
    """How far an engine is from the reference on one case."""

    case: str
    difference: float  # NaN if any output is, or if the engine stopped
    bound: float
    fault: str = ""  # the error that stopped the engine

    @property
    def holds(self) -> bool:
        return self.difference <= self.bound  # a NaN does not

    def __str__(self) -> str:
        if self.fault:
            return f"{self.case}: the engine stopped with {self.fault}"
        return f"{self.case}: largest difference {self.difference:.2g}, bound {self.bound:.2g}"


def cases(longest: int) -> dict[str, list[int]]:
    """Lengths of the sequences of each case, at most ``longest``."""
    draw = np.random.default_rng(0)
    return {
        "one sequence": [min(17, longest)],
        "equal lengths": [min(32, longest)] * 4,
        f"3 beside {longest}": [3, longest],
        "many": draw.integers(2, longest + 1, 12).tolist(),
        "many short": draw.integers(1, min(12, longest) + 1, 24).tolist(),
    }


def check_parity(served: Served, engine: Any) -> list[Parity]:
    """Compare ``engine`` with the trained model on every case; tasks take turns in each."""
    config, draw = served.start.model_config, np.random.default_rng(1)
    runs: list[tuple[str, Callable[[], list[NDArray]], list[NDArray]]] = []
    tasks, longest = list(served.model.tasks), min(384, config.max_position_embeddings)
    every = {"every task": [min(16 + k, longest) for k in range(len(tasks))]} if tasks else {}
    for name, lengths in {**cases(longest), **every}.items():
        offsets = offsets_of(lengths)
        ids = draw.integers(0, config.vocab_size, offsets[-1]).astype(np.int32)
        types = draw.integers(0, config.type_vocab_size, offsets[-1]).astype(np.int32)
        named = ([tasks[k % len(tasks)] for k in range(len(lengths))],) if tasks else ()
        expected = reference(served, ids, types, offsets, *named)
        runs.append((name, partial(engine, ids, types, offsets, *named), expected))
        if name == "many":
            runs.append(("padding in the request", partial(_padded, engine, ids, types, offsets, *named), expected))
    largest = max(float(np.abs(values).max()) for _, _, expected in runs for values in expected)
    bound = BOUNDS[engine.settings["precision"]] * largest
    return [_parity(name, run, expected, bound) for name, run, expected in runs]


def reference(
    served: Served, ids: NDArray, types: NDArray, offsets: NDArray, tasks: Sequence[str] = ()
) -> list[NDArray[np.float32]]:
    """Run the trained model in fp32 on one sequence after the other, each for its task if there are several."""
    attention, served.model.bert.attention = served.model.bert.attention, "reference"
    rows: list[list[NDArray]] = []
    with torch.inference_mode():
        for number, (begin, end) in enumerate(pairwise(offsets.tolist())):
            one_ids, one_types = (torch.from_numpy(values[begin:end]).long() for values in (ids, types))
            batch = TokenStream(one_ids, one_types, torch.tensor([0, end - begin], dtype=torch.int32), end - begin)
            rows.append([output.numpy() for output in served.model.predict(batch, *tasks[number : number + 1])])
    served.model.bert.attention = attention
    return [np.concatenate(outputs) for outputs in zip(*rows, strict=True)]


def _parity(case: str, run: Callable[[], list[NDArray]], expected: list[NDArray], bound: float) -> Parity:
    try:
        got = run()
    except Exception as error:  # each runtime has classes of its own, for an index out of range among others
        last = [line.strip() for line in str(error).splitlines() if line.strip()][-1:]
        return Parity(case, float("nan"), bound, ": ".join([type(error).__name__, *last]))
    differences = [float(np.abs(a - b).max()) for a, b in zip(got, expected, strict=True)]
    worst = float("nan") if any(np.isnan(differences)) else max(differences)
    return Parity(case, worst, bound)


def _padded(engine: Any, ids: NDArray, types: NDArray, offsets: NDArray, *tasks: Sequence[str]) -> list[NDArray]:
    """Run the sequences as one padded request whose padding is on the left of every other row."""
    lengths = np.diff(offsets)
    shape = (len(lengths), int(lengths.max()) + 5)
    starts = np.where(np.arange(len(lengths)) % 2, shape[1] - lengths, 0)
    rows = np.repeat(np.arange(len(lengths)), lengths)
    columns = columns_of(offsets) + np.repeat(starts, lengths)
    table_ids, table_types, mask = (np.full(shape, fill, np.int32) for fill in (7, 1, 0))
    table_ids[rows, columns], table_types[rows, columns], mask[rows, columns] = ids, types, 1
    request = Request.of((table_ids, table_types, mask), engine.settings)
    (outputs,) = unpack([request], engine(*pack([request]), *tasks), engine.settings["per_token"])
    return [values[rows, columns] if engine.settings["per_token"] else values for values in outputs]
