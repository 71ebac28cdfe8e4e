import hashlib
import json

import pytest

from bert.data.formats.table import SWAP, find_shards
from bert.data.manifest import (
    Manifest,
    ShardEntry,
    check_manifests,
    describe_shard,
    read_manifest,
    write_manifest,
)
from bert.errors import UsageError
from bert.tokenization import BertTokenizer


@pytest.fixture
def tokenizer(tmp_path, vocab) -> BertTokenizer:
    (tmp_path / "vocab.txt").write_text("\n".join(vocab) + "\n")
    return BertTokenizer(tmp_path / "vocab.txt")


def test_a_shard_is_counted_and_hashed(make_folder):
    path = make_folder([7]) / "shard-0.hdf5"
    content = path.read_bytes()
    assert describe_shard(path) == ShardEntry(hashlib.sha256(content).hexdigest(), 7, len(content))
    path.write_bytes(content[:100])
    with pytest.raises(UsageError, match=r"shard-0.hdf5: unreadable"):
        describe_shard(path)


def test_what_is_written_is_read_again(tmp_path):
    assert read_manifest(tmp_path) is None
    manifest = Manifest(
        {"seed": 1, "bin_size": None}, {"b.hdf5": ShardEntry("ff", 2, 3), "a.hdf5": ShardEntry("0", 0, 1)}
    )
    write_manifest(tmp_path, manifest)
    assert read_manifest(tmp_path) == manifest
    text = (tmp_path / "manifest.json").read_text()
    assert text == json.dumps(json.loads(text), indent=2, sort_keys=True) + "\n"
    assert json.loads(text)["shards"]["b.hdf5"] == {"sha256": "ff", "num_samples": 2, "bytes": 3}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"settings": {}}',
        '{"name": "an app", "shards": []}',
        '{"settings": {}, "shards": {"a.hdf5": 3}}',
        '{"settings": {}, "shards": {"a.hdf5": {"sha256": "0", "num_samples": 1}}}',
        '{"settings": {}, "shards": {"a.hdf5": {"sha256": "0", "num_samples": "1", "bytes": 1}}}',
        '{"settings": {}, "shards": {"../a.hdf5": {"sha256": "0", "num_samples": 1, "bytes": 1}}}',
        b"\xff\xfe\x00",
    ],
)
def test_another_file_of_that_name_is_refused(tmp_path, content):
    (tmp_path / "manifest.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UsageError, match=r"manifest.json: not a manifest of shards \("):
        read_manifest(tmp_path)


def manifest_of(folder, **settings) -> None:
    write_manifest(folder, Manifest(settings, {p.name: describe_shard(p) for p in find_shards(folder)}))


def test_the_vocabulary_is_compared(make_folder, tokenizer):
    folder = make_folder([3, 3])
    check_manifests(find_shards(folder), tokenizer)  # nothing is known
    manifest_of(folder)
    check_manifests(find_shards(folder), tokenizer)  # nothing is said
    manifest_of(folder, vocab_sha256=tokenizer.fingerprint, do_lower_case=True)
    check_manifests(find_shards(folder), tokenizer)
    manifest_of(folder, vocab_sha256="ab" * 32, vocab_size=28996)
    message = rf"SHA-256 {tokenizer.fingerprint[:12]}.*100 pieces.* not that of .*shards \(abababababab.*28996 pieces"
    with pytest.raises(UsageError, match=message):
        check_manifests(find_shards(folder), tokenizer)
    manifest_of(folder, vocab_sha256=tokenizer.fingerprint, do_lower_case=False)
    with pytest.raises(UsageError, match=r"do_lower_case true, but the manifest of .*shards has do_lower_case false"):
        check_manifests(find_shards(folder), tokenizer)


def test_missing_shards_are_named(make_folder, tokenizer):
    folder = make_folder([3, 3, 3])
    manifest_of(folder)
    (folder / "shard-1.hdf5").unlink()
    with pytest.raises(UsageError, match=r"shards: no shard-1.hdf5, which manifest.json lists"):
        check_manifests(find_shards(folder), tokenizer)
    (folder / "shard-2.hdf5").unlink()
    with pytest.raises(UsageError, match=r"shards: no shard-1.hdf5 and 1 more, which manifest.json lists"):
        check_manifests(find_shards(folder), tokenizer)


def test_hidden_folders_and_manifests_hold_no_shards(make_folder):
    folder = make_folder([3])
    manifest_of(folder)
    for name in (".balance/run/shard-9.hdf5", ".num_samples.json", "sub/.old/shard-8.hdf5"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    assert [path.name for path in find_shards(folder)] == ["shard-0.hdf5"]


def test_a_folder_that_is_being_balanced_is_refused(make_folder):
    folder = make_folder([3])
    (folder / SWAP).parent.mkdir()
    (folder / SWAP).write_text("{}")
    for name in (folder, folder / "shard-0.hdf5", folder / "*.hdf5", folder.parent):
        with pytest.raises(
            UsageError, match=r"--input_dir .*shards: data/balance.py was interrupted here; run it again"
        ):
            find_shards(name)
