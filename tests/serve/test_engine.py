"""The engine's batches, with a stand-in for the model whose outputs are known."""

import json

import numpy as np
import pytest

from bert.errors import UsageError
from bert.ragged import offsets_of
from bert.serve.engine import Engine, load_engine, parts_of


@pytest.mark.parametrize(
    ("lengths", "budget", "expected"),
    [
        ([2, 3, 9, 4], 5, [[0, 1], [2], [3]]),
        ([2, 3], 5, [[0, 1]]),  # exactly full
        ([2, 3, 1], 5, [[0, 1], [2]]),
        ([9], 5, [[0]]),  # longer than the budget: alone
        ([9, 9], 5, [[0], [1]]),
        ([1, 9, 1], 5, [[0], [1], [2]]),
        ([1, 1, 1], 1, [[0], [1], [2]]),
    ],
)
def test_parts(lengths, budget, expected):
    parts = parts_of(np.array(lengths), budget)
    assert [list(range(len(lengths)))[part] for part in parts] == expected


class StandIn:
    """Outputs of a token: its id, and 100 times its type plus its sequence's length. Of a sequence: its sum of ids."""

    def __init__(self, per_token: bool):
        self.per_token = per_token
        self.batches: list[list[int]] = []  # lengths

    def __call__(self, ids, types, cu, longest):
        lengths = np.diff(cu)
        assert cu.dtype == np.int32 and cu[0] == 0 and cu[-1] == len(ids) == len(types)
        assert longest == lengths.max()
        self.batches.append(lengths.tolist())
        if self.per_token:
            return [ids.astype(np.float32), (100 * types + np.repeat(lengths, lengths)).astype(np.float32)]
        return [np.add.reduceat(ids, cu[:-1]).astype(np.float32)[:, None] * [1, 10]]


IDS = np.array([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], np.int32)
TYPES = np.array([0, 0, 1, 1, 0, 1, 0, 0, 1, 1], np.int32)
LENGTHS = [4, 1, 3, 2]


def test_outputs_of_tokens_come_back_in_order():
    model = StandIn(per_token=True)
    engine = Engine(model, {"per_token": True, "batch_tokens": 5})
    first, second = engine(IDS, TYPES, offsets_of(LENGTHS))
    assert model.batches == [[1, 2], [3], [4]]  # shorter ones first, at most 5 tokens
    assert first.tolist() == IDS.tolist()
    assert second.tolist() == [4, 4, 104, 104, 1, 103, 3, 3, 102, 102]


def test_outputs_of_sequences_come_back_in_order():
    model = StandIn(per_token=False)
    (sums,) = Engine(model, {"per_token": False, "batch_tokens": 5})(IDS, TYPES, offsets_of(LENGTHS))
    assert model.batches == [[1, 2], [3], [4]]
    assert sums.tolist() == [[10, 100], [5, 50], [21, 210], [19, 190]]


@pytest.mark.parametrize("per_token", [True, False])
def test_a_row_in_front_of_the_outputs_is_cut_off(per_token):
    """A lone sequence is run beside an empty one, which has no token, but a row of its own."""

    def run(ids, types, cu, longest):
        return [ids.astype(np.float32)] if per_token else [np.array([[-1.0], [ids.sum()]], np.float32)]

    (found,) = Engine(run, {"per_token": per_token, "batch_tokens": 5})(IDS[:3], TYPES[:3], offsets_of([3]))
    assert found.tolist() == ([1, 2, 3] if per_token else [[6]])


def test_equal_lengths_keep_their_order():
    model = StandIn(per_token=False)
    (sums,) = Engine(model, {"per_token": False, "batch_tokens": 4})(IDS, TYPES, offsets_of([2] * 5))
    assert model.batches == [[2, 2], [2, 2], [2]]
    assert sums[:, 0].tolist() == [3, 7, 11, 15, 19]


def test_a_folder_without_model_is_one_line(tmp_path):
    with pytest.raises(UsageError, match=f"^{tmp_path}.*settings.json"):
        load_engine(tmp_path)
    (tmp_path / "settings.json").write_text(json.dumps({"format": "onnx", "file": "model.onnx"}))
    with pytest.raises(UsageError, match=f"^{tmp_path}/model.onnx"):
        load_engine(tmp_path)
