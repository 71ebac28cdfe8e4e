"""extract_features.py from a checkpoint and a text to a file."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from recipes.conftest import ROOT, run  # pyright: ignore[reportMissingImports]

import extract_features
from bert.checkpoint import load
from bert.config import parse_args
from bert.errors import UsageError
from bert.model.bert import BertForPreTraining
from bert.model.config import BertConfig
from bert.tokenization import BertTokenizer

LINES = ["The bright river", "green stone ||| the table", "", "walks"]


@pytest.fixture
def files(tmp_path, vocab_file) -> Path:
    """A folder with a pre-training checkpoint and some lines."""
    tokenizer = BertTokenizer(vocab_file)
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=tokenizer.vocab_size, max_position_embeddings=64, **shape)
    torch.manual_seed(0)
    state = {"model": BertForPreTraining(config).state_dict(), "tokenizer": tokenizer.state_dict()}
    torch.save({**state, "model_config": config.to_dict()}, tmp_path / "ckpt_1.pt")
    (tmp_path / "config.json").write_text(config.to_json_string())
    (tmp_path / "lines.txt").write_text("\n".join(LINES) + "\n")
    return tmp_path


def flags(files: Path, **changes: object) -> list[str]:
    values: dict[str, object] = {
        "input_file": files / "lines.txt",
        "output_file": files / "out.jsonl",
        "init_checkpoint": files / "ckpt_1.pt",
        "max_seq_length": 32,
        "no_cuda": True,
        **changes,
    }
    return [f"--{name}={value}" for name, value in values.items() if value is not None]


def extract(files: Path, **changes: object) -> None:
    extract_features.main(parse_args(extract_features.Config, flags(files, **changes)))


def entries(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_published_format(files):
    extract(files, layers="-1,-2", batch_size=3)
    found = entries(files / "out.jsonl")
    assert [entry["linex_index"] for entry in found] == [0, 1, 2, 3]
    tokens = [[feature["token"] for feature in entry["features"]] for entry in found]
    assert tokens == [
        ["[CLS]", "the", "bright", "river", "[SEP]"],
        ["[CLS]", "green", "stone", "[SEP]", "the", "table", "[SEP]"],
        ["[CLS]", "[SEP]"],
        ["[CLS]", "walks", "[SEP]"],
    ]
    layers = found[0]["features"][0]["layers"]
    assert [layer["index"] for layer in layers] == [-1, -2]
    assert all(len(layer["values"]) == 16 for layer in layers)


def test_another_programs_weights_with_google_flag_names(files):
    extract(files)
    # A bare encoder without pooler, as question answering models of others leave it.
    model = load(files / "ckpt_1.pt")["model"]
    torch.save({n: v for n, v in model.items() if n.startswith("bert.") and "pooler" not in n}, files / "other.bin")
    other = {"init_checkpoint": files / "other.bin", "vocab_file": files / "vocab.txt"}
    extract(files, **other, bert_config_file=files / "config.json", output_file=files / "other.jsonl")
    assert (files / "other.jsonl").read_bytes() == (files / "out.jsonl").read_bytes()
    with pytest.raises(UsageError, match=r"2 tensors of the model are not in it \(pooler.dense"):
        extract(files, **other, bert_config_file=files / "config.json", pooling="pooler")


def test_half_precision_is_near(files):
    extract(files, output_file=files / "whole.npz")
    extract(files, output_file=files / "half.npz", bf16=True)
    whole, half = (np.load(files / f"{name}.npz")["layer_-1"] for name in ("whole", "half"))
    assert half.dtype == whole.dtype == np.float32
    assert 0 < np.abs(whole - half).max() < 0.1


@pytest.mark.slow
def test_a_real_process_reads_its_flags(files):
    words = flags(files, output_file=files / "out", output_format="parquet", pooling="mean")
    run(words, script=ROOT / "extract_features.py")
    assert (files / "out").read_bytes()[:4] == b"PAR1"


BAD = [
    ({"output_file": "out.txt"}, "--output_file out.txt: expected one of the suffixes .jsonl, .npz, .parquet"),
    ({"input_file": "/nowhere.txt"}, "--input_file /nowhere.txt: No such file"),
    ({"init_checkpoint": "/nowhere.pt"}, "/nowhere.pt: No such file"),
    ({"layers": "-3"}, "--layers -3: the model has 2 layers"),
    ({"max_seq_length": 65}, "--max_seq_length 65: the model has positions for 64"),
    ({"fp16": True, "bf16": True}, "choose one"),
    ({"output_file": "/proc/nowhere/out.jsonl"}, "--output_file /proc/nowhere/out.jsonl: "),
]


@pytest.mark.parametrize(("changes", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_input(files, changes, message):
    before = sorted(files.iterdir())
    with pytest.raises(UsageError, match=message):
        extract(files, **changes)
    assert sorted(files.iterdir()) == before


def test_the_input_is_not_overwritten(files):
    with pytest.raises(UsageError, match=r"lines.txt: is --input_file"):
        extract(files, output_file=files / "lines.txt", output_format="npz")
    assert (files / "lines.txt").read_text().splitlines() == LINES
