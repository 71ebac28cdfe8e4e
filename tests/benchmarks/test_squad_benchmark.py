"""The SQuAD benchmark: both sides get the same work, and the command runs."""

import json
import random
import re

import numpy as np
import pytest
import torch

from benchmarks import squad
from benchmarks.squad import SquadBenchmarkConfig, first, grouped_batches
from benchmarks.squad_data import join_contexts, train_words, write_questions
from benchmarks.squad_peer import Peer, convert, missing, pad, peer_tokenizer
from bert.config import parse_args
from bert.errors import UsageError
from bert.model.objective import QuestionAnsweringObjective
from bert.sequences import Sequences, collate, from_rows
from bert.squad.examples import load_dataset, paragraphs, read_squad_examples
from bert.squad.features import convert_examples_to_features, features_to_sequences
from bert.tokenization import BertTokenizer
from bert.train.precision import Precision, PrecisionConfig

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> tuple[str, str]:
    """A file of questions and a vocabulary."""
    folder = tmp_path_factory.mktemp("squad")
    file = write_questions(folder, 300)
    train_words(folder, file, str(folder / "vocab.txt"))
    return file, str(folder / "vocab.txt")


def sequences_of(files: tuple[str, str]) -> Sequences:
    examples = read_squad_examples(files[0], True, False)
    return features_to_sequences(convert_examples_to_features(examples, BertTokenizer(files[1]), 384, 128, 64, True))


def test_contexts_are_as_long_as_squads(files):
    contexts = [each.context for each in paragraphs(load_dataset(files[0]), files[0])]
    lengths = [len(context.split()) for context in contexts]
    assert 130 < np.mean(lengths) < 170
    assert np.std(lengths) > 40


def test_answers_keep_their_places_in_joined_contexts():
    single = [
        {"context": f"{n} stones", "qas": [{"answers": [{"text": "stones", "answer_start": 2}]}]} for n in "12345"
    ]
    made = join_contexts(single, random.Random(3))
    assert " ".join(each["context"] for each in made) == "1 stones 2 stones 3 stones 4 stones 5 stones"
    assert 1 < len(made) < 5
    starts = [[question["answers"][0]["answer_start"] for question in each["qas"]] for each in made]
    assert starts == [[2 + 9 * n for n in range(len(each["qas"]))] for each in made]


def test_both_sides_make_the_same_windows(files):
    """Holds if every context fits into one window; otherwise the two interpret the stride differently."""
    ours, theirs = sequences_of(files), convert(files[0], peer_tokenizer(files[1], True), 384, 128)
    assert len(ours) == len(theirs["input_ids"]) > 100
    assert theirs["start_positions"] == ours.labels["start"].tolist()
    assert theirs["end_positions"] == ours.labels["end"].tolist()
    padded = pad(collate(ours, np.arange(len(ours))), 384)
    for name in ("input_ids", "token_type_ids", "attention_mask"):
        assert padded[name].tolist() == theirs[name]


def test_the_peer_finds_answers_in_overlapping_windows(files):
    tokenizer = peer_tokenizer(files[1], True)
    columns = convert(files[0], tokenizer, 96, 32)
    whole = convert(files[0], tokenizer, 384, 128)
    assert len(columns["input_ids"]) > 2 * len(whole["input_ids"])

    def answers(of: dict) -> list[tuple[int, ...]]:
        rows = zip(of["input_ids"], of["start_positions"], of["end_positions"], strict=True)
        return [tuple(ids[start : end + 1]) for ids, start, end in rows if start]

    assert set(answers(columns)) == set(answers(whole))
    assert 0 in columns["start_positions"]


def test_the_peer_has_the_same_model(files, tiny_config):
    """The same weights give the same logits; the losses differ, as transformers' softmax includes padding."""
    tiny_config.vocab_size, tiny_config.max_position_embeddings = BertTokenizer(files[1]).vocab_size, 384
    peer = Peer("sorted", tiny_config, PrecisionConfig(), torch.device("cpu"), compiled=False)
    assert peer.model.config._attn_implementation == "sdpa"
    model = squad.BertForQuestionAnswering(tiny_config)
    state = dict(peer.model.state_dict())
    table = "bert.embeddings.word_embeddings.weight"
    rows = tiny_config.padded_vocab_size - tiny_config.vocab_size
    state[table] = torch.nn.functional.pad(state[table], (0, 0, 0, rows))
    missing = model.load_state_dict(state, strict=False).missing_keys
    assert all("pooler" in name for name in missing)
    objective = QuestionAnsweringObjective(model).eval()
    batch = collate(sequences_of(files), np.arange(3))
    padded = pad(batch)
    with torch.no_grad():
        logits = objective.predict(batch)
    real = padded["attention_mask"].bool()
    assert real.shape[1] % 8 == 0 and 0 <= real.shape[1] - batch.max_seqlen < 8
    torch.testing.assert_close(logits, peer.predict([batch], 384)[0][real], rtol=1e-4, atol=1e-5)


def test_the_first_sequences(files):
    whole = sequences_of(files)
    some = first(whole, 5)
    assert len(some) == 5
    expected, found = (collate(each, np.arange(5)) for each in (whole, some))
    assert found.input_ids.equal(expected.input_ids)
    assert found.token_type_ids.equal(expected.token_type_ids)
    assert len(first(whole, 10**6)) == len(whole)


def test_grouped_batches_have_near_equal_lengths():
    """Of windows of 1 to 400 tokens, all 50 batches of 8 sorted: the 7th, 19th, 32nd and 44th."""
    lengths = np.random.default_rng(2).permutation(np.arange(1, 401))
    sequences = from_rows([[0] * length for length in lengths], lengths.tolist())
    chosen = lengths[grouped_batches(sequences, count=8, steps=4)]
    assert [row.max() for row in chosen] == [400 - 8 * place for place in (6, 18, 31, 43)]
    assert (chosen.max(1) - chosen.min(1)).tolist() == [7] * 4


def test_it_runs(files, capsys, monkeypatch, tmp_path):
    tiny = {"num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16}
    monkeypatch.setitem(squad.PRESETS, "small", tiny)
    monkeypatch.setattr(squad, "measure_ceiling", lambda device, dtype: 1e11)
    words = ["--file", files[0], "--vocab_file", files[1], "--rounds", "2", "--batch_size", "2", "--compile", "off"]
    words += ["--peers", "example,sorted,unpadded,eager", "--json", str(tmp_path / "squad.json"), "--steps", "3"]
    squad.main(parse_args(SquadBenchmarkConfig, [*words, "--predict_windows", "5", "--device", "cpu"]))
    out = capsys.readouterr().out
    assert "--peers unpadded: skipped, since flash_attn needs a GPU" in out
    assert re.search(r"^preparing, questions/s: .* faster by \d+\.\d\d x$", out, re.MULTILINE)
    rows = json.loads((tmp_path / "squad.json").read_text())["rows"]
    titles = ["this suite", *(squad.PEERS[name].title for name in ("example", "sorted", "eager"))]
    assert [(row["work"], row["contender"]) for row in rows] == [
        (work, title) for work in ("training", "prediction") for title in titles
    ]
    assert all(f"| {row['work']} | {row['contender']} |" in out for row in rows)
    for ours, example, ordered, _ in (rows[:4], rows[4:]):
        assert ours["faster"] == 1 and ours["padding"] == 0
        assert 0 < ordered["padding"] < example["padding"] < 1


def test_flash_attention_is_skipped_where_it_is_not_installed():
    assert missing("example", Precision(PrecisionConfig(), torch.device("cuda"))) is None
    for config, lacks in ((PrecisionConfig(), "--bf16 or --fp16"), (PrecisionConfig(bf16=True), "not installed")):
        assert lacks in str(missing("unpadded", Precision(config, torch.device("cuda"))))


def test_a_stride_without_room_is_one_line(files):
    words = ["--file", files[0], "--vocab_file", files[1], "--max_seq_length", "128", "--device", "cpu"]
    message = r"^--doc_stride 128: expected less than the \d+ pieces of context .* in --max_seq_length 128$"
    with pytest.raises(UsageError, match=message):
        squad.main(parse_args(SquadBenchmarkConfig, words))


@pytest.mark.parametrize("name", ["--file", "--vocab_file"])
def test_a_missing_file_is_one_line(files, name):
    words = {"--file": files[0], "--vocab_file": files[1], name: "/nowhere/at/all"}
    with pytest.raises(UsageError, match="/nowhere/at/all"):
        squad.main(parse_args(SquadBenchmarkConfig, [word for pair in words.items() for word in pair]))
