"""compare_models.py as a user runs it: two formats, transformers, and models that differ."""

import re
import shutil
from pathlib import Path

import pytest
import torch

import compare_models
from bert.checkpoint.formats import BertWithHeads, Weights, read_checkpoint, write_checkpoint
from bert.config import run_command
from bert.model.config import BertConfig
from bert.model.names import DECODER
from bert.tokenization import BertTokenizer

FORMATS = ("native", "hf", "tf", "oneflow", "nvidia")


@pytest.fixture(scope="module")
def models(corpus, tmp_path_factory) -> Path:
    """One model in every format, and "other" in the native one, which differs in one number."""
    folder = tmp_path_factory.mktemp("models")
    tokenizer = BertTokenizer(corpus / "vocab.txt")
    torch.manual_seed(0)
    model = BertWithHeads(
        BertConfig.from_json_file(corpus / "config.json"), ("cls.predictions", "cls.seq_relationship")
    )
    model.initialize()
    tensors = {name: tensor for name, tensor in model.state_dict().items() if name != DECODER}
    for format in FORMATS:
        write_checkpoint(folder / format, format, Weights(tensors, model.config, tokenizer))
    name = "bert.encoder.layer.1.output.dense.bias"
    changed = tensors[name] + torch.eye(32)[5] * 1e-2
    write_checkpoint(folder / "other", "native", Weights({**tensors, name: changed}, model.config, tokenizer))
    return folder


def compare(models, a: str, b: str, *more: str, code: int | None = None) -> str | int | None:
    """Run the command in the folder of the models; returns its exit code, None if it ends normally."""
    try:
        run_command(compare_models.main, compare_models.Config, ["--a", a, "--b", b, *more])
    except SystemExit as ended:
        return ended.code
    return None


TEXT = ["--text", "ba ka lan ||| du gon .", "ben fo ."]


@pytest.mark.parametrize("format", FORMATS)
def test_a_model_is_the_same_in_every_format(models, capsys, format):
    assert compare(models, f"native:{models}/native", f"{format}:{models}/{format}", *TEXT) is None
    out = capsys.readouterr().out
    rows = dict(re.findall(r"^(\S.*?)  +(\S+)  \S+$", out, re.MULTILINE))
    assert list(rows) == [
        *("layer 1", "layer 2", "pooled", "cls.predictions", "cls.seq_relationship"),
        *("loss of cls.predictions", "loss of cls.seq_relationship"),
    ]
    assert set(rows.values()) == {"0.000e+00"}
    assert "within the bound 1e-05" in out


def test_transformers_computes_the_same(models, capsys, tmp_path):
    pytest.importorskip("transformers")
    plot = tmp_path / "rms.png"
    sides = f"{models}/tf", f"transformers:{models}/hf"
    assert compare(models, *sides, *TEXT, "--bound", "1e-6", "--plot", str(plot)) is None
    assert plot.read_bytes()[:4] == b"\x89PNG"
    assert "loss of cls.predictions" in capsys.readouterr().out


def test_a_difference_above_the_bound_is_exit_code_1(models, capsys):
    sides = f"{models}/native", f"{models}/other"
    assert compare(models, *sides, *TEXT) == 1
    out = capsys.readouterr().out
    assert "above the bound 1e-05" in out and re.search(r"layer 1 +0\.000e\+00", out)
    assert compare(models, *sides, *TEXT, "--bound", "0.1") is None


def test_a_side_without_pooler_is_compared_without_it(models, capsys, tmp_path):
    state = read_checkpoint(models / "native")
    state["model"] = {name: tensor for name, tensor in state["model"].items() if "pooler" not in name}
    del state["skipped"]
    torch.save(state, tmp_path / "headless.pt")
    assert compare(models, f"{models}/native", f"{tmp_path}/headless.pt", *TEXT) is None
    assert not re.search(r"pooled|seq_relationship", capsys.readouterr().out)


def test_each_side_cuts_the_text_with_its_own_tokenizer(models, capsys, tmp_path):
    transformers = pytest.importorskip("transformers")
    shutil.copytree(models / "hf", tmp_path / "hf")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    tokenizer.add_tokens(["kalan"])
    tokenizer.save_pretrained(tmp_path / "hf")
    (tmp_path / "hf" / "vocab.txt").unlink()
    sides = f"{models}/native", f"transformers:{tmp_path}/hf"
    assert compare(models, *sides, "--text", "ba lan") is None
    assert compare(models, *sides, "--text", "ba ||| du kalan") == 1
    new = len(tokenizer) - 1
    assert re.search(rf"'du kalan': --a .* into the ids .*, --b .* into \[\d+, {new}\]", capsys.readouterr().err)


BAD = [
    (["tf:{}/native", "{}/hf"], "expected a checkpoint in the format tf, this looks like native"),
    (["{}/native", "onnx:{}/native"], "No such file or directory"),
    (["{}/oneflow", "{}/oneflow"], "error: --vocab_file: needed, neither --a"),
    (["{}/native", "{}/hf", "--plot", "rms.xyz"], "error: --plot rms.xyz: "),
    (["{}/native", "{}/hf", "--text", "ba " * 100], "error: --text: 102 pieces; --a"),
]


@pytest.mark.parametrize(("words", "message"), BAD)
def test_bad_input_is_one_line(models, capsys, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    assert compare(models, *(word.format(models) for word in words)) == 2
    err = capsys.readouterr().err
    assert message in err and len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
