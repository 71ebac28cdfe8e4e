"""The command line refuses shards that were made otherwise, before the first step."""

import shutil
from pathlib import Path

import pytest
from recipes.conftest import pretraining_flags  # pyright: ignore[reportMissingImports]

import run_pretraining
from bert.config import parse_args
from bert.data.formats.table import find_shards
from bert.data.manifest import Manifest, describe_shard, write_manifest
from bert.errors import UsageError
from bert.tokenization import BertTokenizer


@pytest.fixture
def shards(corpus, tmp_path) -> Path:
    return shutil.copytree(corpus / "shards_32", tmp_path / "shards")


def list_shards(folder: Path, **settings) -> None:
    write_manifest(folder, Manifest(settings, {path.name: describe_shard(path) for path in find_shards(folder)}))


def test_another_vocabulary_is_refused_before_the_first_step(corpus, shards, tmp_path):
    list_shards(shards, vocab_sha256="0123456789" * 6 + "abcd", vocab_size=30522)
    own = BertTokenizer(corpus / "vocab.txt").fingerprint
    flags = pretraining_flags(corpus, tmp_path / "out", input_dir=shards)
    with pytest.raises(UsageError) as caught:
        run_pretraining.main(parse_args(run_pretraining.Config, flags))
    error = str(caught.value)
    assert "\n" not in error
    assert "012345678901..., 30522 pieces" in error
    assert own[:12] in error
    assert not (tmp_path / "out").exists()


def test_held_out_shards_are_checked_too(corpus, shards, tmp_path):
    list_shards(shards, do_lower_case=False)
    flags = pretraining_flags(corpus, tmp_path / "out", eval_dir=shards)
    with pytest.raises(UsageError, match=r"do_lower_case true, but the manifest of .*shards has do_lower_case false"):
        run_pretraining.main(parse_args(run_pretraining.Config, flags))


def test_shards_of_the_same_vocabulary_train(corpus, shards, tmp_path):
    list_shards(shards, vocab_sha256=BertTokenizer(corpus / "vocab.txt").fingerprint, do_lower_case=True)
    flags = pretraining_flags(corpus, tmp_path / "out", input_dir=shards, max_steps=1)
    run_pretraining.main(parse_args(run_pretraining.Config, flags))
    assert (tmp_path / "out/ckpt_1.pt").exists()
    next(shards.glob("*_2_*")).unlink()
    with pytest.raises(UsageError, match=r"shards: no part_2_training.hdf5, which manifest.json lists"):
        run_pretraining.main(parse_args(run_pretraining.Config, flags))
