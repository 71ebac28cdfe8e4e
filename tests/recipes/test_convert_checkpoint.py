"""The real command lines: a pre-trained model to every system and back, and as --init_checkpoint of what follows."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from recipes.conftest import ROOT, pretraining_flags  # pyright: ignore[reportMissingImports]

import convert_checkpoint
import extract_features
import run_pretraining
from bert.checkpoint import convert_tf, load
from bert.checkpoint.formats import build_model
from bert.checkpoint.formats.tf_bundle import Bundle
from bert.config import parse_args, run_command
from bert.errors import UsageError
from bert.model.config import BertConfig


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory) -> Path:
    """A checkpoint of this suite after some steps."""
    folder = tmp_path_factory.mktemp("trained")
    flags = pretraining_flags(corpus, folder, max_steps=10, learning_rate=1e-2)
    run_pretraining.main(parse_args(run_pretraining.Config, flags))
    return folder / "ckpt_10.pt"


def convert(checkpoint, output, to, **flags) -> None:
    words = {"checkpoint": checkpoint, "output": output, "to": to, **flags}
    argv = [word for name, value in words.items() for word in (f"--{name}", str(value))]
    convert_checkpoint.main(parse_args(convert_checkpoint.Config, argv))


def described(corpus) -> dict:
    return {"config_file": corpus / "config.json", "vocab_file": corpus / "vocab.txt"}


@pytest.mark.parametrize("to", ["tf", "oneflow", "hf", "nvidia", "native"])
def test_there_and_back(corpus, trained, tmp_path, to, capsys):
    convert(trained, tmp_path / "there", to)
    assert "tensors loaded; skipped: " in capsys.readouterr().out  # the moments of LAMB
    convert(
        tmp_path / "there", tmp_path / "back.pt", "native", **(described(corpus) if to in ("tf", "oneflow") else {})
    )
    found, expected = load(tmp_path / "back.pt"), load(trained)
    assert found["model"].keys() == expected["model"].keys()
    assert all(torch.equal(found["model"][name], tensor) for name, tensor in expected["model"].items())
    origin = {"source": "", "guessed": []}  # TensorFlow and OneFlow hold no vocabulary
    assert {**found["tokenizer"], **origin} == {**expected["tokenizer"], **origin}
    assert BertConfig.from_dict(found["model_config"]).vocab_size == expected["model_config"]["vocab_size"]


def test_transformers_predicts_the_same_masked_tokens(corpus, trained, tmp_path):
    convert(trained, tmp_path / "hf", "hf")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "hf").eval()
    state = load(trained)
    ours = build_model(state["model"], BertConfig.from_dict(state["model_config"])).eval()
    ours.load_state_dict(state["model"])
    lines = [line for line in (corpus / "text.txt").read_text().splitlines() if len(line.split()) > 5][:20]
    masked = [" ".join([*line.split()[:2], "[MASK]", *line.split()[3:]]) for line in lines]
    inputs = tokenizer(masked, padding=True, return_tensors="pt")
    places = inputs["input_ids"] == tokenizer.mask_token_id
    assert int(places.sum()) == len(lines)
    with torch.no_grad():
        layers, _ = ours.bert(inputs["input_ids"], inputs["token_type_ids"], inputs["attention_mask"])
        scores = ours.cls.predictions(layers[-1])[places]
        others = theirs(**inputs).logits[places]
    assert (scores - others).square().mean().sqrt() < 1e-6
    assert scores.topk(5).indices.tolist() == others.topk(5).indices.tolist()


@pytest.mark.parametrize("to", ["tf", "oneflow", "hf", "nvidia", "2018"])
def test_init_checkpoint_takes_every_format(corpus, trained, tmp_path, to):
    """Features are the same bytes, whatever the format of the weights."""
    (tmp_path / "lines.txt").write_text("ba ka lan ||| du gon .\nben fo\n")

    def features(checkpoint, name: str, **flags) -> bytes:
        words = {"init_checkpoint": checkpoint, "input_file": tmp_path / "lines.txt", "output_file": tmp_path / name}
        words |= {"device": "cpu", "max_seq_length": 32, **flags}
        argv = [word for key, value in words.items() for word in (f"--{key}", str(value))]
        extract_features.main(parse_args(extract_features.Config, argv))
        return (tmp_path / name).read_bytes()

    convert(trained, tmp_path / "model", to)
    assert features(tmp_path / "model", "b.jsonl", **described(corpus)) == features(trained, "a.jsonl")


def test_pretraining_starts_from_tensorflows_files(corpus, trained, tmp_path, capsys):
    convert(trained, tmp_path / "bert_model.ckpt", "tf")
    flags = pretraining_flags(
        corpus, tmp_path / "out", max_steps=1, learning_rate=0.0, init_checkpoint=tmp_path / "bert_model.ckpt"
    )
    run_pretraining.main(parse_args(run_pretraining.Config, flags))
    assert "--init_checkpoint" in capsys.readouterr().out
    found, expected = load(tmp_path / "out/ckpt_1.pt")["model"], load(trained)["model"]
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_a_published_archive_needs_no_flags(corpus, trained, tmp_path):
    """bert_config.json and vocab.txt are in the folder of bert_model.ckpt."""
    convert(trained, tmp_path / "bert_model.ckpt", "tf")
    (tmp_path / "bert_config.json").write_text((corpus / "config.json").read_text())
    (tmp_path / "vocab.txt").write_text((corpus / "vocab.txt").read_text())
    for number, path in enumerate(["bert_model.ckpt", "bert_model.ckpt.index", ""]):
        convert(tmp_path / path, tmp_path / f"{number}.pt", "native")
        assert load(tmp_path / f"{number}.pt")["tokenizer"]["vocab"] == load(trained)["tokenizer"]["vocab"]


@pytest.mark.parametrize("form", ["flags", "positional", "installed"])
def test_the_published_command_of_2018(corpus, trained, tmp_path, monkeypatch, form):
    convert(trained, tmp_path / "bert_model.ckpt", "tf")
    words = [str(tmp_path / "bert_model.ckpt"), str(corpus / "config.json"), str(tmp_path / "pytorch_model.bin")]
    names = ["--tf_checkpoint_path", "--bert_config_file", "--pytorch_dump_path"]
    argv = [word for pair in zip(names, words, strict=True) for word in pair] if form == "flags" else words
    if form == "installed":
        command = ["pytorch_pretrained_bert", "convert_tf_checkpoint_to_pytorch"]
        monkeypatch.setattr("sys.argv", [*command, *argv])
        convert_tf.pytorch_pretrained_bert()
    else:
        convert_tf.convert(parse_args(convert_tf.ConvertConfig, convert_tf.as_flags(argv)))
    found = torch.load(tmp_path / "pytorch_model.bin", weights_only=True)
    assert len(found) == 5 + 16 * 2 + 2  # embeddings, two layers, pooler
    bundle = Bundle(tmp_path / "bert_model.ckpt")
    kernel = torch.from_numpy(bundle.read("bert/encoder/layer_1/intermediate/dense/kernel"))
    assert torch.equal(found["encoder.layer.1.intermediate.dense.weight"], kernel.T)
    gamma = torch.from_numpy(bundle.read("bert/embeddings/LayerNorm/gamma"))
    assert torch.equal(found["embeddings.LayerNorm.gamma"], gamma)


@pytest.mark.parametrize("words", [[], ["convert_gpt2_checkpoint", "a", "b", "c"]])
def test_other_published_commands_are_refused(monkeypatch, capsys, words):
    monkeypatch.setattr("sys.argv", ["pytorch_pretrained_bert", *words])
    with pytest.raises(SystemExit, match="2"):
        convert_tf.pytorch_pretrained_bert()
    assert "expected convert_tf_checkpoint_to_pytorch CHECKPOINT CONFIG OUTPUT" in capsys.readouterr().err


def test_the_activation_can_be_corrected(trained, tmp_path):
    convert(trained, tmp_path / "model.pt", "native", hidden_act="gelu_tanh")
    assert load(tmp_path / "model.pt")["model_config"]["hidden_act"] == "gelu_tanh"


def test_pretrained_weights_over_a_fresh_snapshot(corpus, trained, tmp_path, capsys):
    """By hand on two folders: same names are overwritten, a head stays, the counter is 0, the rest is ignored."""
    convert(trained, tmp_path / "fresh", "oneflow")
    for out in (tmp_path / "fresh").glob("bert-*/out"):
        out.write_bytes(b"\2" * out.stat().st_size)
    for name in ("cls-squad-output-weight", "bert-pooler-dense-bias-m", "System-Train-TrainStep-Squad"):
        (tmp_path / "fresh" / name).mkdir()
        (tmp_path / "fresh" / name / "out").write_bytes(b"\1" * 8)
    for out in (tmp_path / "fresh").glob("cls-pred*/out"):
        out.unlink()
    convert(trained, tmp_path / "pretrained", "oneflow")
    capsys.readouterr()
    convert(tmp_path / "pretrained", tmp_path / "merged", "oneflow", fresh=tmp_path / "fresh")
    lines = [line.partition(" (")[0] for line in capsys.readouterr().out.splitlines()]
    assert lines == ["overwritten: 41", "kept: 2", "ignored: 5", "set to 0: 1"]
    merged = {out.parent.name: out.read_bytes() for out in (tmp_path / "merged").glob("*/out")}
    assert merged["cls-squad-output-weight"] == merged["bert-pooler-dense-bias-m"] == b"\1" * 8
    assert merged["System-Train-TrainStep-Squad"] == bytes(8)
    for name in ("bert-pooler-dense-bias", "bert-encoder-layer_1-output-dense-weight"):
        assert merged[name] == (tmp_path / "pretrained" / name / "out").read_bytes()
    assert "cls-predictions-output_bias" not in merged

    convert(trained, tmp_path / "directly", "oneflow", fresh=tmp_path / "fresh")  # from a file of another format
    assert {out.parent.name: out.read_bytes() for out in (tmp_path / "directly").glob("*/out")} == merged


def test_a_snapshot_of_another_size_is_not_merged(corpus, trained, tmp_path):
    convert(trained, tmp_path / "fresh", "oneflow")
    convert(trained, tmp_path / "pretrained", "oneflow")
    (tmp_path / "fresh" / "bert-pooler-dense-bias" / "out").write_bytes(b"\0" * 64)
    with pytest.raises(UsageError, match=r"pretrained: bert-pooler-dense-bias has 128 bytes; expected 64, as in"):
        convert(tmp_path / "pretrained", tmp_path / "merged", "oneflow", fresh=tmp_path / "fresh")
    assert not (tmp_path / "merged").exists()


BAD = [
    ({"checkpoint": "/nowhere.pt"}, "error: /nowhere.pt: No such file or directory, nor /nowhere.pt.index"),
    ({"to": "onnx"}, "argument --to: invalid choice: 'onnx'"),
    ({"from": "tf"}, "expected a checkpoint in the format tf, this looks like native"),
    ({"fresh": "snapshot"}, "error: --fresh snapshot: for --to oneflow only, not hf"),
    ({"hidden_act": "gelou"}, "hidden_act 'gelou' is unknown: expected one of gelu, "),
    ({"vocab_file": "vocab of another.txt"}, "vocab_file"),
    ({"output": "/proc/none/model"}, "error: --output /proc/none/model: "),
]


@pytest.mark.parametrize(("flags", "message"), BAD, ids=[str(flags) for flags, _ in BAD])
def test_bad_input_is_one_line_and_writes_nothing(trained, tmp_path, flags, message, capsys):
    words = {"checkpoint": trained, "output": tmp_path / "out put", "to": "hf", **flags}
    argv = [word for name, value in words.items() for word in (f"--{name}", str(value))]
    with pytest.raises(SystemExit) as ended:
        run_command(convert_checkpoint.main, convert_checkpoint.Config, argv)
    out, err = capsys.readouterr()
    assert ended.value.code == 2 and out == ""
    assert message in err and len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_without_configuration_says_which_flag_is_needed(trained, tmp_path):
    convert(trained, tmp_path / "tf", "tf")
    with pytest.raises(UsageError, match="--config_file: needed, --checkpoint .* holds no configuration"):
        convert(tmp_path / "tf", tmp_path / "back.pt", "native")
    assert json.loads((ROOT / "bert_configs/base.json").read_text())["hidden_size"] == 768
    with pytest.raises(UsageError, match=r"tensors of the model are not in it"):
        convert(tmp_path / "tf", tmp_path / "back.pt", "native", config_file=ROOT / "bert_configs/base.json")
    assert not (tmp_path / "back.pt").exists()
