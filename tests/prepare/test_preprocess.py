"""The pipeline block by block, without a cluster; tests/recipes/test_preparing.py runs the command."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from bert.config import parse_args
from bert.data.formats.table import read_shard
from bert.errors import UsageError
from bert.prepare.pipeline import RECORDS, PreprocessConfig, ShardPlan, make_shards, read_records
from bert.prepare.preprocess import block_bytes, check, describe
from bert.prepare.text.sources import plan_blocks
from bert.prepare.tokens import DocumentEncoder
from bert.tokenization import BertTokenizer, open_tokenizer


def configure(*words: object) -> PreprocessConfig:
    return parse_args(PreprocessConfig, [str(word) for word in words])


def plan_of(tmp_path: Path, vocab_file: Path, *words: object) -> tuple[ShardPlan, dict]:
    """What preprocess() sends to the workers, with an empty sink, and the settings."""
    sink = tmp_path / "sink"
    (sink / RECORDS).mkdir(parents=True, exist_ok=True)
    config = configure("--sink", sink, "--vocab-file", vocab_file, "--target-seq-length", 64, *words)
    check(config)
    tokenizer = open_tokenizer(vocab_file, config.tokenizer)
    blocks = plan_blocks(
        config.sources,
        tmp_path / "work",
        block_size=block_bytes(config),
        num_blocks=config.num_blocks,
        show_progress=False,
    )
    settings = describe(config, tokenizer, blocks)
    return ShardPlan(config, sink, blocks, DocumentEncoder(tokenizer), settings["max_predictions_per_seq"]), settings


def make_plan(tmp_path: Path, vocab_file: Path, *words: object) -> ShardPlan:
    return plan_of(tmp_path, vocab_file, *words)[0]


def test_blocks_become_shards_and_records(tmp_path, vocab_file, text_folder):
    plan = make_plan(tmp_path, vocab_file, "--text", text_folder, "--block-size", "16K", "--masking")
    assert len(plan.blocks) > 3
    records = [make_shards(plan, index) for index in range(len(plan.blocks))]
    assert read_records(plan.sink) == records
    assert sum(record.documents for record in records) == 90
    vocab = BertTokenizer(vocab_file).vocab
    for record in records:
        for name, entry in record.shards.items():
            shard = read_shard(Path(plan.sink, name), vocab)
            assert shard.num_samples == entry["num_samples"] > 0
            assert shard.lengths.max() <= 64
            assert shard.masks is not None
            assert set(shard.next_sentence_labels) == {0, 1}


def test_every_piece_of_the_text_is_in_the_shards(tmp_path, vocab_file, text_folder):
    """Sequences long enough for whole documents hold each piece once, apart from random second segments."""
    plan = make_plan(
        tmp_path,
        vocab_file,
        "--text",
        text_folder,
        "--duplicate-factor",
        1,
        "--short-seq-prob",
        0,
        "--target-seq-length",
        5000,
    )
    for index in range(len(plan.blocks)):
        make_shards(plan, index)
    tokenizer = BertTokenizer(vocab_file)
    found: Counter = Counter()
    for path in sorted(plan.sink.glob("part.*.parquet")):
        shard = read_shard(path, tokenizer.vocab)
        for row, label in enumerate(shard.next_sentence_labels):
            start, stop = shard.offsets[row : row + 2]
            found.update(shard.tokens[start : start + shard.segment_starts[row] if label else stop].tolist())
    for special in (tokenizer.cls_id, tokenizer.sep_id):
        del found[special]
    texts = [path.read_text() for path in sorted(text_folder.iterdir())]
    expected = Counter(piece for ids in tokenizer.encode_batch(texts) for piece in ids)
    assert found == expected


def test_a_block_gives_the_same_bytes_again_and_another_seed_others(tmp_path, vocab_file, text_folder):
    def entries(seed: int) -> dict:
        plan = make_plan(
            tmp_path, vocab_file, "--text", text_folder, "--block-size", "16K", "--seed", seed, "--masking"
        )
        return make_shards(plan, 1).shards

    first = entries(1)
    assert entries(1) == first
    assert entries(2) != first


def test_bins_hold_the_lengths_that_they_name(tmp_path, vocab_file, text_folder):
    vocab = BertTokenizer(vocab_file).vocab
    flags = ["--text", text_folder, "--short-seq-prob", 0.5]
    together = make_plan(tmp_path, vocab_file, *flags)
    make_shards(together, 0)
    lengths = read_shard(Path(together.sink, "part.0.parquet"), vocab).lengths
    binned = make_plan(tmp_path, vocab_file, *flags, "--bin-size", 16)
    shards = make_shards(binned, 0).shards
    expected = Counter(((lengths - 1) // 16).tolist())
    assert len(expected) >= 3
    assert {name: entry["num_samples"] for name, entry in shards.items()} == {
        f"part.0.parquet_{number}": count for number, count in expected.items()
    }
    for name in shards:
        assert set((read_shard(Path(binned.sink, name), vocab).lengths - 1) // 16) == {int(name[-1])}


@pytest.mark.parametrize("kind", ["hdf5", "tfrecord"])
def test_other_formats_hold_the_same_sequences(tmp_path, vocab_file, text_folder, kind):
    vocab = BertTokenizer(vocab_file).vocab
    shards = []
    for output in ("parquet", kind):
        plan = make_plan(tmp_path, vocab_file, "--text", text_folder, "--masking", "--output-format", output)
        name = next(iter(make_shards(plan, 0).shards))
        assert name == f"part.0.{output}"
        shards.append(read_shard(Path(plan.sink, name), vocab))
    for field in ("tokens", "offsets", "segment_starts", "next_sentence_labels", "masked_positions", "masked_labels"):
        assert np.array_equal(getattr(shards[0], field), getattr(shards[1], field))


def test_the_sample_takes_its_share_of_the_documents(tmp_path, vocab_file, make_text):
    text = tmp_path / "text.txt"
    text.write_text(make_text(600, sentences=2))
    plan = make_plan(tmp_path, vocab_file, "--text", text, "--sample-ratio", 0.3)
    taken = make_shards(plan, 0).documents
    assert taken == pytest.approx(180, abs=4 * (600 * 0.3 * 0.7) ** 0.5)


class TestOneDocumentInABlock:
    """Its random next sentences come from the blocks that follow."""

    def words_of(self, plan: ShardPlan, vocab_file: Path) -> list[tuple[set[str], set[str], int]]:
        tokenizer = BertTokenizer(vocab_file)
        rows = []
        for path in sorted(plan.sink.glob("part.*.parquet")):
            shard = read_shard(path, tokenizer.vocab)
            for row, label in enumerate(shard.next_sentence_labels):
                ids = shard.tokens[shard.offsets[row] : shard.offsets[row + 1]]
                cut = shard.segment_starts[row]
                a, b = (set(tokenizer.convert_ids_to_tokens(part)) for part in (ids[1 : cut - 1], ids[cut:-1]))
                rows.append((a - {"."}, b - {"."}, int(label)))
        return rows

    def write(self, folder: Path, words: list[str], sentences: int = 40) -> None:
        folder.mkdir()
        for index, word in enumerate(words):
            (folder / f"{index}.txt").write_text("\n\n".join([" ".join([word.capitalize()] * 6) + "."] * sentences))

    def test_partners_are_other_documents(self, tmp_path, vocab_file):
        self.write(tmp_path / "files", ["river", "stone", "green"])
        plan = make_plan(
            tmp_path, vocab_file, "--text", tmp_path / "files", "--documents", "file", "--block-size", "300"
        )
        assert len(plan.blocks) >= 6  # each file continues over several blocks
        for index in range(len(plan.blocks)):
            assert make_shards(plan, index).documents == 1
        rows = self.words_of(plan, vocab_file)
        assert {label for *_, label in rows} == {0, 1}
        for a, b, label in rows:
            assert len(a) == len(b) == 1
            assert (a != b) == bool(label)

    def test_a_corpus_of_one_document_is_refused(self, tmp_path, vocab_file):
        self.write(tmp_path / "files", ["river"])
        plan = make_plan(
            tmp_path, vocab_file, "--text", tmp_path / "files", "--documents", "file", "--block-size", "300"
        )
        assert len(plan.blocks) > 1
        with pytest.raises(UsageError, match="the sources hold one document, expected at least two"):
            make_shards(plan, 0)


def test_a_record_without_its_shard_does_not_count(tmp_path, vocab_file, text_folder):
    plan = make_plan(tmp_path, vocab_file, "--text", text_folder, "--block-size", "16K")
    records = [make_shards(plan, index) for index in range(3)]
    Path(plan.sink, "part.0.parquet").unlink()
    with Path(plan.sink, "part.1.parquet").open("ab") as file:
        file.write(b"x")
    assert read_records(plan.sink) == records[2:]


def test_pretokenized_text_is_cut_at_blanks_alone(tmp_path, vocab_file):
    vocab_file.write_text(vocab_file.read_text() + "中国\n人民\n")
    text = tmp_path / "text.txt"
    text.write_text("中国 人民 .\n人民 .\n\n人民 中国 人民\n中国\n")
    plan = make_plan(tmp_path, vocab_file, "--sentences", text, "--pretokenized")
    record = make_shards(plan, 0)
    assert (record.documents, record.sentences, record.pieces, record.unknown) == (2, 4, 9, 0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--bin-size", "48"], "--bin_size 48: expected a divisor of --target_seq_length 128"),
        (["--bin-size", "32", "--output-format", "hdf5"], "--bin_size 32: expected .* --output_format parquet"),
        (["--max-predictions-per-seq", "126"], "--max_predictions_per_seq 126: .* leaves room for 1 to 125"),
        (["--block-size", "4X"], "--block_size 4X: expected a size such as 512K, 4M or 1G"),
        (["--block-size", "0"], "--block_size 0: expected a size"),
        (["--memory-limit", "much"], "--memory_limit much: expected a size such as 4GB, or auto"),
        (["--memory-limit", "100MB"], "--memory_limit 100MB: blocks of 4194304 bytes need"),
        (["--output-format", "tfrecord"], "--output_format tfrecord: expected --masking"),
    ],
)
def test_wrong_flags(words, message):
    with pytest.raises(UsageError, match=message):
        check(configure("--sink", "x", "--vocab-file", "v", *words))


def test_the_plan_names_all_that_decides_the_bytes(tmp_path, vocab_file, text_folder):
    def hash_of(*words: object) -> str:
        return plan_of(tmp_path, vocab_file, "--text", text_folder, *words)[1]["plan"]

    first = hash_of()
    for words in (
        ["--seed", 1],
        ["--block-size", "20K"],
        ["--masking"],
        ["--sample-ratio", 0.5],
        ["--short-seq-prob", 0],
    ):
        assert hash_of(*words) != first
    assert hash_of("--num-workers", 1, "--memory-limit", "2GB") == first
    (text_folder / "text_1.txt").write_text("Shorter.\n")
    assert hash_of() != first


def test_a_record_is_a_line_of_json(tmp_path, vocab_file, text_folder):
    plan = make_plan(tmp_path, vocab_file, "--text", text_folder, "--block-size", "16K")
    make_shards(plan, 2)
    record = json.loads(Path(plan.sink, RECORDS, "part.2.json").read_text())
    assert set(record["shards"]["part.2.parquet"]) == {"sha256", "num_samples", "bytes"}


def test_a_record_says_what_was_passed_over(tmp_path, vocab_file):
    path = tmp_path / "a.txt"
    path.write_bytes(b"the river walks. the stone sings.\n\n" * 50 + b"the caf\xe9 walks.\n")
    plan = make_plan(tmp_path, vocab_file, "--text", path, "--masking")
    record = make_shards(plan, 0)
    assert read_records(plan.sink) == [record] and record.invalid == {str(path): 1}
