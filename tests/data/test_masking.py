import numpy as np
import pytest

from bert.data.masking import DynamicMasking
from bert.ragged import offsets_of

VOCABULARY = {piece: i for i, piece in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *map(str, range(995))])}


def stream(lengths, seed=0):
    """[CLS] pieces [SEP], end to end."""
    offsets = offsets_of(np.array(lengths))
    ids = np.random.default_rng(seed).integers(5, 1000, offsets[-1])
    ids[offsets[:-1]], ids[offsets[1:] - 1] = 2, 3
    return ids, offsets


def mask(ids, offsets, epoch=0, sample=None, cap=20, seed=7):
    masking = DynamicMasking.for_vocabulary(VOCABULARY, cap, seed)
    count = len(offsets) - 1
    sample = np.arange(count) if sample is None else np.asarray(sample)
    return masking(ids, offsets, np.full(count, epoch), sample)


def test_labels_are_the_originals_and_the_rest_is_unchanged():
    ids, offsets = stream([128] * 50)
    before = ids.copy()
    masked, positions, labels = mask(ids, offsets)
    np.testing.assert_array_equal(ids, before)
    np.testing.assert_array_equal(labels, before[positions])
    untouched = np.setdiff1d(np.arange(len(ids)), positions)
    np.testing.assert_array_equal(masked[untouched], before[untouched])
    assert (np.diff(positions) > 0).all()


def test_shares_are_those_of_the_paper():
    """15 % chosen; of those 80 % [MASK], 10 % random, 10 % unchanged: within four standard deviations."""
    ids, offsets = stream([512] * 400)
    masked, positions, labels = mask(ids, offsets, cap=10**6)
    candidates = len(ids) - 2 * 400

    def check(count, total, share):
        assert abs(count / total - share) < 4 * np.sqrt(share * (1 - share) / total)

    check(len(positions), candidates, 0.15)
    put = masked[positions]
    check((put == 4).sum(), len(put), 0.8)
    check((put == labels).sum(), len(put), 0.1 + 0.1 / 995)
    random = put[(put != 4) & (put != labels)]
    check(len(random), len(put), 0.1 * 994 / 995)
    assert len(np.unique(random)) > 900  # of 995 ordinary pieces, each drawn 7.7 times on average


def test_special_tokens_are_neither_chosen_nor_put_in():
    ids, offsets = stream([60] * 300)
    ids[5::7] = np.resize([0, 1, 2, 3, 4], len(ids[5::7]))
    masked, positions, labels = mask(ids, offsets)
    assert labels.min() >= 5
    assert set(masked[positions].tolist()) & {0, 1, 2, 3} == set()


@pytest.mark.parametrize("cap", [1, 5, 20])
def test_predictions_are_capped(cap):
    ids, offsets = stream([128, 30, 512, 128] * 20)
    _, positions, _ = mask(ids, offsets, cap=cap)
    counts = np.diff(np.searchsorted(positions, offsets))
    assert counts.max() == cap
    assert counts.min() >= 1
    _, uncapped, _ = mask(ids, offsets, cap=10**6)
    assert set(positions) <= set(uncapped)


def test_the_cap_favours_no_place():
    ids, offsets = stream([128] * 2000)
    _, positions, _ = mask(ids, offsets, cap=5)
    places = (positions - np.repeat(offsets[:-1], 5)) / 127
    assert abs(places.mean() - 0.5) < 4 * np.sqrt(1 / 12 / len(places))


def test_every_sequence_has_a_prediction():
    ids, offsets = stream([3, 4, 5] * 200)  # one to three candidates: 15 % would leave most without
    _, positions, _ = mask(ids, offsets)
    assert np.diff(np.searchsorted(positions, offsets)).min() == 1


def test_a_sequence_of_specials_has_none():
    ids, offsets = np.array([2, 1, 3, 2, 1, 3]), np.array([0, 3, 6])
    masked, positions, labels = mask(ids, offsets)
    assert masked.tolist() == ids.tolist()
    assert len(positions) == len(labels) == 0


def test_masks_do_not_depend_on_the_company():
    """Sequence 3 is masked alike alone, in a batch, and in another order."""
    ids, offsets = stream([40, 128, 64, 100, 90])
    masked, positions, labels = mask(ids, offsets)
    for rows in ([3], [4, 3], [3, 0, 1]):
        part = np.concatenate([ids[offsets[r] : offsets[r + 1]] for r in rows])
        begins = offsets_of(np.diff(offsets)[rows])
        again = mask(part, begins, sample=rows)
        at = rows.index(3)
        low, high = begins[at], begins[at + 1]
        np.testing.assert_array_equal(again[0][low:high], masked[offsets[3] : offsets[4]])
        mine = (again[1] >= low) & (again[1] < high)
        whole = (positions >= offsets[3]) & (positions < offsets[4])
        np.testing.assert_array_equal(again[1][mine] - low, positions[whole] - offsets[3])
        np.testing.assert_array_equal(again[2][mine], labels[whole])


def test_epochs_seeds_and_samples_are_masked_differently():
    ids, offsets = stream([512])
    chosen = [
        set(mask(ids, offsets, **change)[1].tolist()) for change in ({}, {"epoch": 1}, {"seed": 8}, {"sample": [1]})
    ]
    for i, one in enumerate(chosen):
        for other in chosen[i + 1 :]:
            assert len(one & other) < len(one) / 2  # 15 % are expected
