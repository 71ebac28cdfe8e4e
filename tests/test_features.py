"""Features against transformers' BertModel on the same weights, and the file formats against each other."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import transformers

from bert.checkpoint import load_weights
from bert.errors import UsageError
from bert.features import extract
from bert.features.extract import Extractor, FeaturesConfig, encode_lines, layer_indexes, read_lines
from bert.features.files import FORMATS, write_features
from bert.model.bert import BertModel
from bert.model.config import BertConfig
from bert.tokenization import BertTokenizer
from bert.train.precision import Precision, PrecisionConfig

LINES = [
    "the bright river walks",
    "green stone on ||| the table",
    "",
    "the song ||| of the river ||| under seven stone",
    "walks " * 40,
    "the river and the table and the song " * 3 + "||| " + "green " * 3,
    "|||",
]
DEPTH, WIDTH, LONGEST = 3, 32, 16


@pytest.fixture
def tokenizer(vocab_file) -> BertTokenizer:
    return BertTokenizer(vocab_file)


@pytest.fixture
def peer(tokenizer) -> transformers.BertModel:
    torch.manual_seed(0)
    shape = {"hidden_size": WIDTH, "num_hidden_layers": DEPTH, "num_attention_heads": 4, "intermediate_size": 64}
    config = transformers.BertConfig(vocab_size=tokenizer.vocab_size, max_position_embeddings=64, **shape)
    model = transformers.BertModel(config).eval()
    for parameter in model.parameters():  # larger than the initial weights: the layers should differ
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


@pytest.fixture
def make_extractor(peer, tokenizer):
    """Return a function (layers, ...) -> Extractor with the weights of ``peer``."""

    def make(layers=(-1, 0), **changes) -> Extractor:
        values = {name: value for name, value in peer.config.to_dict().items() if name in BertConfig.__annotations__}
        model = BertModel(BertConfig(**values)).eval()
        load_weights(model, peer.state_dict(), "peer")
        precision = Precision(PrecisionConfig(), torch.device("cpu"))
        return Extractor(model, tokenizer, precision, layers, **{"max_seq_length": LONGEST, "batch_size": 3, **changes})

    return make


def expected_input(line: str, tokenizer: BertTokenizer) -> tuple[list[str], list[int]]:
    """Return tokens and segment ids by the rules, one step at a time."""
    a, b = line.strip(), None
    if " ||| " in a:
        a, b = a[: a.rindex(" ||| ")], a[a.rindex(" ||| ") + 5 :]
    first = tokenizer.tokenize(a)
    if b is None:
        tokens = ["[CLS]", *first[: LONGEST - 2], "[SEP]"]
        return tokens, [0] * len(tokens)
    second = tokenizer.tokenize(b)
    while len(first) + len(second) > LONGEST - 3:
        (first if len(first) > len(second) else second).pop()
    return ["[CLS]", *first, "[SEP]", *second, "[SEP]"], [0] * (len(first) + 2) + [1] * (len(second) + 1)


def expected_output(line: str, tokenizer: BertTokenizer, peer) -> tuple[list[str], list[torch.Tensor], torch.Tensor]:
    tokens, types = expected_input(line, tokenizer)
    ids = torch.tensor([tokenizer.convert_tokens_to_ids(tokens)])
    with torch.no_grad():
        out = peer(ids, token_type_ids=torch.tensor([types]), output_hidden_states=True)
    return tokens, [hidden[0] for hidden in out.hidden_states[1:]], out.pooler_output[0]


def examples_of(extractor: Extractor, lines: list[str]) -> list[tuple[int, np.ndarray, np.ndarray]]:
    return [example for chunk in extractor.chunks(lines) for example in chunk.examples()]


def test_every_layer_equals_transformers_for_texts_and_pairs(make_extractor, tokenizer, peer):
    layers = [-1, 0, 1]
    found = examples_of(make_extractor(layers), LINES)
    assert [number for number, _, _ in found] == list(range(len(LINES)))
    for (_, ids, values), line in zip(found, LINES, strict=True):
        tokens, hidden, _ = expected_output(line, tokenizer, peer)
        assert tokenizer.convert_ids_to_tokens(ids) == tokens
        assert values.shape == (3, len(tokens), WIDTH)
        for index, layer in zip(layers, values, strict=True):
            np.testing.assert_allclose(layer, hidden[index].numpy(), rtol=1e-4, atol=2e-5)


def test_segment_ids_make_a_difference(make_extractor, peer):
    (pair, *_), types = examples_of(make_extractor(), LINES[1:2]), torch.zeros(1, 8, dtype=torch.long)
    with torch.no_grad():
        without = peer(torch.from_numpy(pair[1])[None].long(), token_type_ids=types).last_hidden_state[0]
    assert len(pair[1]) == 8
    assert np.abs(pair[2][0] - without.numpy()).max() > 0.01


@pytest.mark.parametrize("pooling", ["cls", "mean", "max", "pooler"])
def test_pooling(make_extractor, tokenizer, peer, pooling):
    layers = [-1] if pooling == "pooler" else [-1, 0]
    for (_, _, values), line in zip(examples_of(make_extractor(layers, pooling=pooling), LINES), LINES, strict=True):
        _, hidden, pooled = expected_output(line, tokenizer, peer)
        for index, vector in zip(layers, values, strict=True):
            layer = hidden[index]
            wanted = {"cls": layer[0], "mean": layer.mean(0), "max": layer.amax(0), "pooler": pooled}[pooling]
            np.testing.assert_allclose(vector, wanted.numpy(), rtol=1e-4, atol=2e-5)


def test_chunks_change_nothing(make_extractor, monkeypatch):
    whole = examples_of(make_extractor(), LINES)
    monkeypatch.setattr(extract, "HELD_BYTES", 2 * 2 * LONGEST * WIDTH * 4)  # room for two lines
    extractor = make_extractor(batch_size=2)
    assert [len(chunk.sequences) for chunk in extractor.chunks(LINES)] == [2, 2, 2, 1]
    for (number, ids, values), (n, i, v) in zip(whole, examples_of(extractor, LINES), strict=True):
        assert number == n
        assert (ids == i).all()
        np.testing.assert_allclose(values, v, rtol=1e-4, atol=1e-5)


def test_lines_are_read_as_they_are_needed(make_extractor, monkeypatch):
    monkeypatch.setattr(extract, "MOST_LINES", 4)
    taken = []
    chunks = make_extractor(batch_size=2).chunks(taken.append(i) or "the river" for i in range(1000))
    assert len(next(chunks).sequences) == 4
    assert len(taken) == 4


@pytest.mark.parametrize("pooling", ["none", "mean"])
def test_the_formats_hold_the_same(make_extractor, tmp_path, monkeypatch, pooling):
    monkeypatch.setattr(extract, "MOST_LINES", 3)
    extractor = make_extractor(layers=[-1, 0], pooling=pooling)
    for name in FORMATS:
        config = FeaturesConfig("", str(tmp_path / "deep" / f"out.{name}"))
        write_features(config, extractor, LINES)
    folder = tmp_path / "deep"
    assert len(list(folder.iterdir())) == 3
    wanted = examples_of(extractor, LINES)
    lines = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    table = pq.read_table(folder / "out.parquet").to_pylist()
    arrays = np.load(folder / "out.npz", allow_pickle=False)
    bounds = arrays["offsets"]
    assert len(lines) == len(table) == len(bounds) - 1 == len(LINES)
    for i, (number, ids, values) in enumerate(wanted):
        tokens = extractor.tokenizer.convert_ids_to_tokens(ids)
        place = slice(bounds[i], bounds[i + 1])
        assert lines[i]["linex_index"] == table[i]["linex_index"] == number
        assert table[i]["tokens"] == arrays["pieces"][arrays["token_ids"][place]].tolist() == tokens
        for row, index in enumerate((-1, 0)):
            flat = arrays[f"layer_{index}"]
            exact = flat[i] if pooling == "mean" else flat[place]
            assert (exact == values[row]).all()
            assert (np.array(table[i][f"layer_{index}"], np.float32) == exact).all()
            found = from_json(lines[i], row, tokens)
            assert np.abs(found - exact).max() <= 0.51e-6
            assert all(len(repr(abs(x)).partition(".")[2]) <= 6 for x in found.flatten().tolist() if abs(x) > 1e-4)


def from_json(entry: dict, row: int, tokens: list[str]) -> np.ndarray:
    """Return the vectors of a layer and check that the entry has the published keys, in their order."""
    if "features" not in entry:
        assert entry["tokens"] == tokens
        assert [each["index"] for each in entry["layers"]] == [-1, 0]
        return np.array(entry["layers"][row]["values"])
    assert list(entry) == ["linex_index", "features"]
    assert [each["token"] for each in entry["features"]] == tokens
    assert all([layer["index"] for layer in each["layers"]] == [-1, 0] for each in entry["features"])
    return np.array([each["layers"][row]["values"] for each in entry["features"]])


def test_a_failure_leaves_the_file_of_before(make_extractor, tmp_path):
    def lines():
        yield from ["the river"] * 5
        raise UsageError("the disk is on fire")

    for name in FORMATS:
        path = tmp_path / f"out.{name}"
        path.write_text("before")
        with pytest.raises(UsageError, match="on fire"):
            write_features(FeaturesConfig("", str(path)), make_extractor(), lines())
        assert path.read_text() == "before"
    assert len(list(tmp_path.glob("*out.*"))) == len(list(tmp_path.glob(".*"))) + 3 == 3


def test_a_line_ends_at_a_newline_only(tmp_path, tokenizer):
    path = tmp_path / "lines.txt"
    path.write_bytes("\ufeffthe\u2028river\r\n\ngreen\rstone".encode())
    lines = list(read_lines(path))
    assert len(lines) == 3 and lines[0][0] == "t"  # not the byte-order mark
    sequences = encode_lines(lines, LONGEST, tokenizer)
    assert sequences.lengths.tolist() == [4, 2, 4]
    assert sequences.segment_starts.tolist() == [4, 2, 4]


@pytest.mark.parametrize(
    ("layers", "pooling", "expected"),
    [
        (None, "none", [-1, -2, -3]),  # the last four of three
        (None, "pooler", [-1]),
        ("2", "pooler", [2]),
        ("-3,2,0", "none", [-3, 2, 0]),
    ],
)
def test_layer_indexes(layers, pooling, expected):
    assert layer_indexes(layers, DEPTH, pooling) == expected


@pytest.mark.parametrize(
    ("layers", "pooling", "message"),
    [
        ("-4", "none", "the model has 3 layers, expected -3 to 2"),
        ("3", "none", "the model has 3 layers"),
        ("all", "none", "--layers all: expected whole numbers"),
        ("1,1", "none", "named twice"),
        ("-1,-2", "pooler", "made of the last layer"),
    ],
)
def test_bad_layers(layers, pooling, message):
    with pytest.raises(UsageError, match=message):
        layer_indexes(layers, DEPTH, pooling)


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "is empty"), (b"\xff\n", "not UTF-8 text"), (None, "No such file")]
)
def test_bad_input_files(tmp_path, content, message):
    path = Path(tmp_path / "lines.txt")
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=f"--input_file .*lines.txt: {message}"):
        list(read_lines(path))


def test_a_missing_input_is_an_error_before_a_line_is_asked_for(tmp_path):
    with pytest.raises(UsageError, match="No such file"):
        read_lines(tmp_path / "lines.txt")
