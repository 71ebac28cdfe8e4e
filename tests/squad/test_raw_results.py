import numpy as np
import pytest

from bert.errors import UsageError
from bert.squad.answers import RawResult
from bert.squad.raw_results import load_results, save_results


def test_results_as_a_file(tmp_path):
    path = tmp_path / "all_results.npy"
    save_results(path, [RawResult(7, [1, 2, 3], [4, 5]), RawResult(8, np.arange(4.0), np.arange(4.0))], 4)
    first, second = load_results(path)
    assert (first.unique_id, second.unique_id) == (7, 8)
    assert (first.start_logits.tolist(), first.end_logits.tolist()) == ([1, 2, 3, -1e6], [4, 5, -1e6, -1e6])
    (one, _) = np.load(path)  # as the scripts for OneFlow read it
    assert (int(one[0][0]), [float(x) for x in one[1].flat]) == (7, [1, 2, 3, -1e6])


@pytest.mark.parametrize("content", ["objects", "other", "text", None])
def test_results_of_another_kind(tmp_path, content):
    path = tmp_path / "all_results.npy"
    if content == "objects":
        np.save(path, np.array([(1, "a"), None], dtype=object), allow_pickle=True)
    elif content == "other":
        np.save(path, np.zeros(3))
    elif content:
        path.write_text(content)
    with pytest.raises(
        UsageError, match=r"--all_results_file .*all_results.npy: (No such|expected an array of unique_id)"
    ):
        load_results(path)
