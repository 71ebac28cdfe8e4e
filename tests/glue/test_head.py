"""A classifier's outputs in a task's order: what transformers' model says of each label is what is predicted here."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

import convert_checkpoint
import run_glue
from bert.checkpoint import load
from bert.checkpoint.formats import read_checkpoint
from bert.config import parse_args
from bert.errors import UsageError
from bert.glue import Task, find_task
from bert.glue.head import match_labels
from bert.glue.metrics import acc
from bert.serve.tasks import ServedConfig, open_checkpoint

SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
PAIRS = [("the river walks", "the green stone"), ("seven stones", "a bright song"), ("the table", "sing of the river")]
MNLI = ["ENTAILMENT", "Neutral", "contradiction"]


@pytest.fixture
def their_model(tmp_path, vocab_file):
    """Return a function (names or number of labels) -> folder of a random classifier of transformers."""

    def make(labels) -> Path:
        names = {"id2label": dict(enumerate(labels))} if isinstance(labels, list) else {"num_labels": labels}
        torch.manual_seed(0)
        config = transformers.BertConfig(vocab_size=len(vocab_file.read_text().splitlines()), **SHAPE, **names)
        model = transformers.BertForSequenceClassification(config)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        model.save_pretrained(tmp_path / "hf")
        (tmp_path / "hf" / "vocab.txt").write_text(vocab_file.read_text())
        return tmp_path / "hf"

    return make


def their_logits(folder: Path) -> torch.Tensor:
    tokenizer = transformers.BertTokenizerFast.from_pretrained(folder)
    model = transformers.BertForSequenceClassification.from_pretrained(folder).eval()
    inputs = tokenizer(*map(list, zip(*PAIRS, strict=True)), padding=True, return_tensors="pt")
    with torch.no_grad():
        return model(**inputs).logits


def run(tmp_path: Path, task_name: str, checkpoint, output: str = "out", **flags) -> Path:
    """Write the pairs as a task's files, all with its first label, and run run_glue.py in this process."""
    folder, task = tmp_path / task_name, find_task(task_name)
    folder.mkdir(exist_ok=True)
    for layout in task.layouts.values():
        values = dict(zip(layout.text, zip(*PAIRS, strict=True), strict=False))
        values |= {layout.label: [(task.labels or ["2.5"])[0]] * 3} if layout.label else {}
        values |= {layout.guid: range(3)} if layout.guid else {}
        header = layout.names or tuple(values)
        with (folder / layout.file).open("w") as file:
            rows = csv.writer(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            rows.writerows([] if layout.names else [header])
            rows.writerows([values.get(name, "xxx")[row] for name in header] for row in range(3))
    words = {"task_name": task_name, "data_dir": folder, "init_checkpoint": checkpoint, "output_dir": tmp_path / output}
    words |= {"json_summary": tmp_path / "log.json", "device": "cpu", "max_seq_length": 32, "train_batch_size": 3}
    words |= {"tensorboard_dir": "none", "disable_progress_bar": True, **flags}
    argv = [word for name, value in words.items() for word in (f"--{name}", str(value))]
    run_glue.main(parse_args(run_glue.Config, argv))
    return tmp_path / output


def probabilities(output: Path) -> np.ndarray:
    return np.loadtxt(output / "test_results.tsv", delimiter="\t", ndmin=2)


def convert(checkpoint, output, to: str) -> None:
    argv = ["--checkpoint", str(checkpoint), "--output", str(output), "--to", to]
    convert_checkpoint.main(parse_args(convert_checkpoint.Config, argv))


def test_labels_keep_their_meaning_on_every_way(tmp_path, their_model, capsys):
    """mnli is contradiction, entailment, neutral here; each label has the probability that transformers gives it."""
    folder = their_model(MNLI)
    expected = their_logits(folder).softmax(1)[:, [2, 0, 1]].numpy()
    found = probabilities(run(tmp_path, "mnli", folder, do_eval=True, do_predict=True))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert f"has {', '.join(MNLI)}; reordered to contradiction, entailment, neutral" in capsys.readouterr().out
    assert open_checkpoint(ServedConfig(str(folder), "classify", max_seq_length=64)).settings["labels"] == MNLI
    with pytest.raises(UsageError, match="--labels contradiction,.*: the checkpoint has them in the order ENTAILMENT,"):
        mixed = "contradiction,entailment,neutral"
        open_checkpoint(ServedConfig(str(folder), "classify", max_seq_length=64, labels=mixed))

    convert(folder, tmp_path / "native.pt", "native")
    assert load(tmp_path / "native.pt")["labels"] == MNLI
    again = run(tmp_path, "mnli", tmp_path / "native.pt", "again", do_predict=True)
    np.testing.assert_array_equal(probabilities(again), found)
    convert(tmp_path / "native.pt", tmp_path / "back", "hf")
    assert transformers.AutoConfig.from_pretrained(tmp_path / "back").id2label == dict(enumerate(MNLI))
    torch.testing.assert_close(their_logits(tmp_path / "back"), their_logits(folder))
    convert(folder, tmp_path / "tf", "tf")
    assert "not representable in tf: the labels ENTAILMENT, Neutral, contradiction" in capsys.readouterr().out


@pytest.mark.parametrize("labels", [2, ["label_0", "label_1"]])
def test_names_that_say_nothing_are_taken_in_the_tasks_order(tmp_path, their_model, capsys, labels):
    folder = their_model(labels)
    found = probabilities(run(tmp_path, "rte", folder, do_predict=True))
    np.testing.assert_allclose(found, their_logits(folder).softmax(1).numpy(), atol=1e-5)
    assert "does not name its labels; the order entailment, not_entailment is assumed" in capsys.readouterr().out


def test_a_regression(tmp_path, their_model, capsys):
    folder = their_model(1)
    found = probabilities(run(tmp_path, "sts-b", folder, do_eval=True, do_predict=True))
    np.testing.assert_allclose(found, their_logits(folder).numpy(), atol=1e-4)
    assert "classifier" not in capsys.readouterr().out
    with pytest.raises(UsageError, match="has one output, of a regression; expected the labels entailment, not_ent"):
        run(tmp_path, "rte", folder, do_eval=True)


@pytest.mark.parametrize(
    ("labels", "task", "has", "wants"),
    [
        (["0", "1"], "rte", "the labels 0, 1", "the labels entailment, not_entailment"),
        (["entailment", "neutral"], "rte", "the labels entailment, neutral", "the labels entailment, not_entailment"),
        (["same", "same"], "mrpc", "the labels same, same", "the labels 0, 1"),
        (3, "rte", "3 labels without names", "the labels entailment, not_entailment"),
        (MNLI, "sts-b", f"the labels {', '.join(MNLI)}", "one output, of a regression"),
    ],
)
def test_other_labels_are_an_error_or_a_fresh_head(tmp_path, their_model, capsys, labels, task, has, wants):
    folder = their_model(labels)
    with pytest.raises(UsageError, match=f"its classifier has {has}; expected {wants}, for --task_name"):
        run(tmp_path, task, folder, do_eval=True)
    assert not (tmp_path / "out").exists()
    run(tmp_path, task, folder, do_train=True, max_steps=1, learning_rate=0.0)
    assert f"has {has}; expected {wants}, so that the classifier is fresh" in capsys.readouterr().out
    state, count = load(tmp_path / "out" / "pytorch_model.bin"), find_task(task).num_labels
    assert state["labels"] == list(find_task(task).labels) and "id2label" not in state["model_config"]
    assert state["model"]["classifier.weight"].shape == (count, 32)
    assert not state["model"]["classifier.bias"].any()  # fresh
    expected = read_checkpoint(folder)["model"]["bert.pooler.dense.weight"]
    assert torch.equal(state["model"]["bert.pooler.dense.weight"], expected)


def test_training_goes_on_with_a_head_of_the_same_labels(tmp_path, their_model, capsys):
    folder = their_model(["not entailment", "ENTAILMENT"])
    held = read_checkpoint(folder)["model"]["classifier.weight"]
    output = run(tmp_path, "rte", folder, do_train=True, max_steps=1, learning_rate=0.0)
    assert torch.equal(load(output / "pytorch_model.bin")["model"]["classifier.weight"], held[[1, 0]])
    capsys.readouterr()
    run(tmp_path, "qnli", output / "pytorch_model.bin", "qnli_out", do_eval=True)
    assert "pytorch_model.bin: its classifier was trained on rte, not qnli" in capsys.readouterr().out
    # A run continues only with the labels that it began with: the optimizer's moments are theirs.
    with pytest.raises(UsageError, match=r"--resume_from_checkpoint .*ckpt_1.pt: its classifier has .*in this order"):
        run(tmp_path, "mnli", folder, do_train=True, max_steps=2, resume_from_checkpoint=True)


def test_a_frozen_base_of_another_task(tmp_path, their_model, capsys):
    folder = their_model(MNLI)
    train = {"do_train": True, "max_steps": 1, "freeze": True, "adapter": "houlsby", "adapter_size": 4}
    output = run(tmp_path, "rte", folder, do_predict=True, **train)
    adapter = {"adapter_checkpoint": output / "adapter.safetensors", "do_predict": True}
    capsys.readouterr()
    np.testing.assert_array_equal(
        probabilities(run(tmp_path, "rte", folder, "alone", **adapter)), probabilities(output)
    )
    assert "its classifier" not in capsys.readouterr().out
    with pytest.raises(UsageError, match="its classifier has the labels entailment, not_entailment; expected the"):
        run(tmp_path, "mnli", folder, "other", **adapter)


OWN = Task("own", None, {}, acc, ("Yes", "yes", "no"))
SIGNS = Task("signs", None, {}, acc, ("0", "-1"))
THREE = Task("three", None, {}, acc, ("a b", "c-d", "E"))


@pytest.mark.parametrize(
    ("names", "task", "order"),
    [
        (["NOT_ENTAILMENT", "Entailment"], find_task("rte"), [1, 0]),
        (["not entailment", "entailment"], find_task("qnli"), [1, 0]),
        (["equivalent", "not_equivalent"], find_task("mrpc"), [1, 0]),  # names of the hub's data sets
        (["NEGATIVE", "POSITIVE"], find_task("sst-2"), [0, 1]),
        (["acceptable", "unacceptable"], find_task("cola"), [1, 0]),
        (["1", "0"], find_task("qqp"), [1, 0]),
        (["e", "C_D", "A-B"], THREE, [2, 1, 0]),
        (["1", "0"], SIGNS, None),
        (["-1", "0"], SIGNS, [1, 0]),
        (["no", "yes", "Yes"], OWN, [2, 1, 0]),  # labels of one's own that differ only in case
        (["NO", "yes", "Yes"], OWN, None),
        (["entailment"], find_task("rte"), None),
        (["entailment", "entailment"], find_task("rte"), None),
        (["entailment", "not_entailment", "neutral"], find_task("rte"), None),
        (["POSITIVE", "0"], find_task("sst-2"), [1, 0]),
    ],
)
def test_labels_are_matched_by_name(names, task, order):
    assert match_labels(names, task) == order


@pytest.mark.parametrize(
    ("held", "labels"),
    [
        ({"0": "a", "1": "b"}, ["a", "b"]),
        ({"1": "a", "0": "b"}, ["b", "a"]),
        ({"0": 0, "1": 1}, ["0", "1"]),
        ({"0": "a", "2": "b"}, []),  # incomplete
        ({"0": "a", "1": "b", "2": "c"}, []),  # of another number
        (["a", "b"], []),
        (None, []),
    ],
)
def test_names_in_a_configuration(tmp_path, their_model, held, labels):
    folder = their_model(2)
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, "id2label": held}))
    convert(folder, tmp_path / "native.pt", "native")
    assert load(tmp_path / "native.pt")["labels"] == labels
