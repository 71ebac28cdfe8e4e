import errno
import os

import numpy as np
import pytest

from bert.errors import UsageError
from bert.sequences import from_rows
from bert.squad.cache import EncodedSet, cache_path, features_key, load, load_or_make
from bert.tokenization import BertTokenizer


class Maker:
    """Counts how often it makes the set."""

    def __init__(self):
        self.times = 0

    def __call__(self):
        self.times += 1
        labels = {"start": np.array([1, 0]), "score": np.array([0.5, 2.0])}
        return EncodedSet(from_rows([[2, 7, 3], [2, 7, 8, 3]], [3, 2], labels), {"examples": 2})


@pytest.fixture
def make():
    return Maker()


def values(features):
    s = features.sequences
    arrays = {"tokens": s.tokens, "offsets": s.offsets, "starts": s.segment_starts, **s.labels}
    return {name: (array.dtype, array.tolist()) for name, array in arrays.items()}, features.facts


def test_a_set_is_cached(tmp_path, make, capsys):
    path = tmp_path / "new" / "train.json.npz"
    made = load_or_make(path, "key", make)
    kept = load_or_make(path, "key", make)
    assert make.times == 1
    assert values(kept) == values(made) == values(make())
    assert capsys.readouterr().err == ""
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_another_key_rebuilds_the_cache(tmp_path, make, capsys):
    path = tmp_path / "train.npz"
    load_or_make(path, "key", make)
    load_or_make(path, "other", make)
    error = f"{path}: rebuilding the cache (made from other data, tokenizer or arguments)\n"
    assert (make.times, capsys.readouterr().err) == (2, error)
    load_or_make(path, "other", make)
    assert make.times == 2


def objects(path):
    np.savez(path, key=np.array("key"), tokens=np.array([{}], dtype=object))


def one_array(path):
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


def cut(path):
    path.write_bytes(path.read_bytes()[:-40])


def flipped(path):
    data = bytearray(path.read_bytes())
    place = data.index(np.array([2, 7, 3], np.int32).tobytes())
    data[place] ^= 1
    path.write_bytes(data)


def with_array(**changed):
    def change(path):
        with np.load(path) as arrays:
            np.savez(path, **{**arrays, **{name.replace("label_", "label."): array for name, array in changed.items()}})

    return change


DAMAGE = {
    "cut": cut,
    "flipped bit": flipped,
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("not a cache"),
    "objects": objects,
    "one array": one_array,
    "offsets": with_array(offsets=np.array([0, 3, 8])),
    "no token": with_array(offsets=np.array([0, 0, 7]), segment_starts=np.array([0, 2], np.int32)),
    "late": with_array(offsets=np.array([1, 4, 7])),
    "tokens": with_array(tokens=np.arange(7.0)),
    "starts": with_array(segment_starts=np.array([9, 2], np.int32)),
    "labels": with_array(label_start=np.array([1])),
    "facts": with_array(facts=np.array("[]")),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_damaged_files_are_rebuilt(tmp_path, make, capsys, damage):
    path = tmp_path / "train.npz"
    wanted = load_or_make(path, "key", make)
    damage(path)
    assert values(load_or_make(path, "key", make)) == values(wanted)
    assert make.times == 2
    assert capsys.readouterr().err.startswith(f"{path}: rebuilding the cache (")
    assert values(load(path, "key")) == values(wanted)


def test_a_folder_that_cannot_be_written(tmp_path, make, capsys):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "train.npz"
    assert values(load_or_make(path, "key", make)) == values(make())
    assert capsys.readouterr().err == f"{path}: cannot write the cache ({os.strerror(errno.EEXIST)})\n"


def test_the_key_covers_everything(tmp_path, vocab_file):
    data = tmp_path / "train.json"
    data.write_text("{}")
    tokenizer = BertTokenizer(vocab_file)
    keys = [features_key(data, tokenizer, doc_stride=128, task="squad")]
    assert features_key(str(data), BertTokenizer(vocab_file), task="squad", doc_stride=128) == keys[0]
    keys.append(features_key(data, tokenizer, doc_stride=64, task="squad"))
    keys.append(features_key(data, tokenizer, doc_stride=128))
    keys.append(features_key(data, BertTokenizer(vocab_file, do_lower_case=False), doc_stride=128, task="squad"))
    data.write_text("{ }")
    keys.append(features_key(data, tokenizer, doc_stride=128, task="squad"))
    vocab_file.write_text(vocab_file.read_text() + "more\n")
    keys.append(features_key(data, BertTokenizer(vocab_file), doc_stride=128, task="squad"))
    assert len(set(keys)) == 6
    assert all(len(key) == 64 for key in keys)
    with pytest.raises(UsageError, match="nowhere.json: No such file"):
        features_key(tmp_path / "nowhere.json", tokenizer)


def test_the_name_of_a_cache(tmp_path):
    key = "0123456789abcdef"
    assert cache_path(tmp_path / "train.json", key) == tmp_path / "train.json.0123456789ab.npz"
    assert cache_path("data/train.json", key, tmp_path) == tmp_path / "train.json.0123456789ab.npz"
