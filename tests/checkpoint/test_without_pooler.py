"""Models that transformers saves without a pooler, in every command; what needs one is an error where it is scored."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import compare_models
import convert_checkpoint
import extract_features
import inference
import run_glue
import run_squad
from bert.checkpoint import Found, load
from bert.checkpoint.formats import read_checkpoint
from bert.config import parse_args
from bert.distributed import World
from bert.errors import UsageError
from bert.model.bert import BertForPreTraining
from bert.model.config import BertConfig
from bert.pretrain.run import load_initial_weights
from bert.serve.tasks import ServedConfig, open_checkpoint
from bert.tokenization import BertTokenizer

WEIGHT = "bert.pooler.dense.weight"
LACKS = r"2 tensors of the model are not in it \((bert\.)?pooler.dense.weight, (bert\.)?pooler.dense.bias\)"
SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}


@pytest.fixture
def their_model(tmp_path, vocab_file):
    """Return a function (class of transformers) -> folder of a random model; BertModel is made without a pooler."""

    def make(name: str) -> Path:
        torch.manual_seed(0)
        config = transformers.BertConfig(vocab_size=len(vocab_file.read_text().splitlines()), **SHAPE)
        options = {"add_pooling_layer": False} if name == "BertModel" else {}
        model = getattr(transformers, name)(config, **options)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        model.save_pretrained(tmp_path / name)
        (tmp_path / name / "vocab.txt").write_text(vocab_file.read_text())
        assert not any("pooler" in key for key in read_checkpoint(tmp_path / name)["model"])
        return tmp_path / name

    return make


def call(module, **flags) -> None:
    """Run a command in this process."""
    argv = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    module.main(parse_args(module.Config, argv))


def training(tmp_path, output: str, **flags) -> dict:
    """Return flags of a run of one step that changes nothing."""
    quiet = {"json_summary": tmp_path / "log.json", "tensorboard_dir": "none", "disable_progress_bar": True}
    sizes = {"max_seq_length": 48, "train_batch_size": 2, "max_steps": 1, "learning_rate": 0.0}
    return {"output_dir": tmp_path / output, "device": "cpu", **quiet, **sizes, **flags}


@pytest.fixture
def glue_flags(tmp_path):
    (tmp_path / "rte").mkdir()
    for name in ("train", "dev"):
        rows = ["index\tsentence1\tsentence2\tlabel", "0\tthe river\tstone\tentailment", "1\ta\tb\tnot_entailment"]
        (tmp_path / "rte" / f"{name}.tsv").write_text("\n".join(rows) + "\n")
    return {"task_name": "rte", "data_dir": tmp_path / "rte"}


@pytest.mark.parametrize("name", ["BertForMaskedLM", "BertForQuestionAnswering", "BertModel"])
def test_conversion_keeps_it_absent(tmp_path, their_model, capsys, name):
    folder = their_model(name)
    expected = read_checkpoint(folder)["model"]
    flags = {"config_file": folder / "config.json", "vocab_file": folder / "vocab.txt"}
    others = ("nvidia", "tf", "oneflow", "2018", "pals") if name == "BertForMaskedLM" else ()
    for to in ("native", "hf", *others):
        call(convert_checkpoint, checkpoint=folder, output=tmp_path / to, to=to)
        assert "no pooler was written" in capsys.readouterr().out
        there = read_checkpoint(tmp_path / to)["model"]
        assert there and not any("pooler" in key for key in there)
        own = flags if to in ("tf", "oneflow", "2018", "pals") else {}
        call(convert_checkpoint, checkpoint=tmp_path / to, output=tmp_path / f"{to}.pt", to="native", **own)
        again = load(tmp_path / f"{to}.pt")["model"]
        heads = {key: tensor for key, tensor in expected.items() if not key.startswith(("bert.", "cls.predictions.d"))}
        heads = {} if to in ("2018", "pals") or name == "BertModel" else heads
        assert heads.keys() <= again.keys() and not any("pooler" in key for key in again)
        assert all(torch.equal(again[key], tensor) for key, tensor in heads.items() if tensor.shape == again[key].shape)
    _, loading = getattr(transformers, name).from_pretrained(tmp_path / "hf", output_loading_info=True)
    assert not loading["unexpected_keys"] and all("pooler" in key for key in loading["missing_keys"])
    call(compare_models, a=tmp_path / "native", b=f"transformers:{folder}")
    call(compare_models, a=f"transformers:{tmp_path / 'hf'}", b=folder)
    # Asked for, it is drawn, with the same numbers each time.
    drawn = []
    for output in (tmp_path / "one.pt", tmp_path / "two.pt"):
        call(convert_checkpoint, checkpoint=folder, output=output, to="native", allow_missing="bert.pooler.*")
        assert "left as initialised: bert.pooler.dense.weight, bert.pooler.dense.bias" in capsys.readouterr().out
        drawn.append(load(output)["model"][WEIGHT])
    assert torch.equal(*drawn) and drawn[0].any()


def test_questions_are_answered_without_it(tmp_path, their_model, capsys):
    folder = their_model("BertForQuestionAnswering")
    question = {"id": "q", "question": "the river walks?", "answers": [{"text": "green", "answer_start": 16}]}
    context = {"context": "the river walks green", "qas": [question]}
    (tmp_path / "dev.json").write_text(json.dumps({"version": "1.1", "data": [{"title": "", "paragraphs": [context]}]}))
    files = {"train_file": tmp_path / "dev.json", "predict_file": tmp_path / "dev.json", "skip_cache": True}
    sizes = {"max_query_length": 16, "doc_stride": 16}
    flags = {**files, **sizes, "init_checkpoint": folder}
    call(run_squad, **training(tmp_path, "predicted", do_predict=True, **flags))
    call(run_squad, **training(tmp_path, "trained", do_train=True, do_predict=True, **flags))
    assert "left as initialised: bert.pooler.dense.weight" in capsys.readouterr().out
    found = [(tmp_path / output / "predictions.json").read_text() for output in ("predicted", "trained")]
    assert found[0] == found[1]  # the one step had a learning rate of 0
    saved = load(tmp_path / "trained" / "pytorch_model.bin")["model"]
    assert WEIGHT not in saved and "qa_outputs.weight" in saved  # no later command can take it for a trained one
    call(run_squad, **training(tmp_path, "again", do_predict=True, **flags | {"init_checkpoint": tmp_path / "trained"}))
    assert (tmp_path / "again" / "predictions.json").read_text() == found[0]
    asked = {"question": question["question"], "context": context["context"]}
    capsys.readouterr()
    call(inference, init_checkpoint=folder, device="cpu", json=True, max_seq_length=48, **sizes, **asked)
    assert json.loads(capsys.readouterr().out)["answer"] == json.loads(found[0])["q"]
    served = ServedConfig(str(folder), "qa", max_seq_length=48, max_query_length=16)
    assert open_checkpoint(served).settings["task"] == "qa"


def test_features_of_tokens(tmp_path, their_model):
    folder = their_model("BertForMaskedLM")
    (tmp_path / "in.txt").write_text("the river walks\n")
    flags = {"init_checkpoint": folder, "input_file": tmp_path / "in.txt", "device": "cpu", "max_seq_length": 16}
    call(extract_features, output_file=tmp_path / "cls.npz", pooling="cls", layers="-1", **flags)
    model = transformers.BertForMaskedLM.from_pretrained(folder).bert.eval()
    with torch.no_grad():
        inputs = transformers.BertTokenizerFast.from_pretrained(folder)("the river walks", return_tensors="pt")
        expected = model(**inputs).last_hidden_state[0, 0]
    found = next(array for array in np.load(tmp_path / "cls.npz").values() if array.shape[-1] == 32)
    np.testing.assert_allclose(found.reshape(32), expected.numpy(), atol=1e-5)
    with pytest.raises(UsageError, match=LACKS):  # features, but not those of the pooler
        call(extract_features, output_file=tmp_path / "pooler.npz", pooling="pooler", **flags)
    assert open_checkpoint(ServedConfig(str(folder), "embed", max_seq_length=16)).settings["pooling"] == "mean"


def test_a_classifier_trains_on_a_fresh_one_and_is_not_scored_without(tmp_path, their_model, glue_flags, capsys):
    folder = their_model("BertForMaskedLM")
    call(run_glue, **training(tmp_path, "trained", do_train=True, do_eval=True, init_checkpoint=folder, **glue_flags))
    assert "left as initialised: bert.pooler.dense.weight, bert.pooler.dense.bias" in capsys.readouterr().out
    state = load(tmp_path / "trained" / "pytorch_model.bin")
    for name in (WEIGHT, "bert.pooler.dense.bias"):
        del state["model"][name]
    torch.save(state, tmp_path / "lacks.pt")
    lacking = {"init_checkpoint": tmp_path / "lacks.pt", **glue_flags}
    with pytest.raises(UsageError, match=LACKS):
        call(run_glue, **training(tmp_path, "scored", do_eval=True, **lacking))
    with pytest.raises(UsageError, match=LACKS):
        open_checkpoint(ServedConfig(str(tmp_path / "lacks.pt"), "classify", max_seq_length=48))
    with pytest.raises(UsageError, match=LACKS):
        call(convert_checkpoint, checkpoint=tmp_path / "lacks.pt", output=tmp_path / "out", to="hf")
    with pytest.raises(UsageError, match="--freeze: .* has no pooler, which would stay random"):
        call(run_glue, **training(tmp_path, "frozen", do_train=True, freeze=True, **lacking))
    assert not (tmp_path / "frozen").exists() and not (tmp_path / "scored").exists()
    # One tensor of two is a damaged model, not one without a pooler.
    state["model"]["bert.pooler.dense.bias"] = torch.zeros(32)
    torch.save(state, tmp_path / "lacks.pt")
    with pytest.raises(UsageError, match=r"1 tensors of the model are not in it \(bert.pooler.dense.weight\)"):
        call(convert_checkpoint, checkpoint=tmp_path / "lacks.pt", output=tmp_path / "out", to="hf")


def test_pre_training_starts_from_such_a_model(tmp_path, their_model):
    folder = their_model("BertForMaskedLM")
    tokenizer, notices = BertTokenizer(folder / "vocab.txt"), []
    model = BertForPreTraining(BertConfig(tokenizer.vocab_size, **SHAPE))
    settings = SimpleNamespace(model=SimpleNamespace(vocab_file="vocab.txt"))
    alone = World(0, 0, 1, torch.device("cpu"))
    run: Any = SimpleNamespace(notice=notices.append, settings=settings, world=alone)
    load_initial_weights(model, tokenizer, Found(), str(folder), run)
    assert "left as initialised: bert.pooler.dense.weight, bert.pooler.dense.bias, cls.seq_rel" in notices[0]
    expected = read_checkpoint(folder)["model"]["cls.predictions.transform.dense.weight"]
    assert torch.equal(model.cls.predictions.transform.dense.weight, expected)


@pytest.mark.parametrize("pattern", ["bert.poolr.*", "pooler.*", "classifer.weight", ""])
def test_a_pattern_that_matches_nothing(tmp_path, their_model, pattern):
    folder = their_model("BertForMaskedLM")
    with pytest.raises(UsageError, match=f"^--allow_missing {pattern.replace('*', '.')}: matches no tensor, expected"):
        call(convert_checkpoint, checkpoint=folder, output=tmp_path / "out.pt", to="native", allow_missing=pattern)
    assert not (tmp_path / "out.pt").exists()
    for known in ("cls.seq_relationship.*", "classifier.*", "bert.embeddings.*"):  # it has them, or may lack them
        call(convert_checkpoint, checkpoint=folder, output=tmp_path / "out.pt", to="native", allow_missing=known)
