"""--adapter and --freeze in run_glue.py and run_squad.py, and the adapter checkpoint in other commands."""

import json

import pytest
import torch
from recipes.test_finetuning import files, flags, glue, run_here, squad, weights  # noqa: F401  # pyright: ignore

import inference
import run_glue
import run_squad
from bert.checkpoint.adapter_files import ADAPTER_FILE
from bert.config import parse_args
from bert.errors import UsageError


@pytest.fixture
def base(files):  # noqa: F811
    """A model to adapt: a classifier after a step."""
    run_here(run_glue, glue(files, "base", do_train=True, max_steps=1))
    return files / "base" / "pytorch_model.bin"


FROM_BASE = {"config_file": None, "vocab_file": None, "freeze": True, "do_train": True}


def test_frozen_classifier_alone_and_as_adapter(files, base, capsys):  # noqa: F811
    adapted = {**FROM_BASE, "init_checkpoint": base, "adapter": "houlsby", "adapter_size": 3}
    run_here(run_glue, glue(files, "out", **adapted, do_predict=True, max_steps=4))
    before, after = weights(files, "base"), weights(files, "out")
    for name, tensor in before.items():
        trained = "LayerNorm" in name or name.startswith("classifier.")
        assert torch.equal(after[name], tensor) != trained, name
    assert {name.split(".")[3] for name in after.keys() - before.keys()} == {"layers"}
    assert (files / "out" / ADAPTER_FILE).stat().st_size < (files / "out" / "pytorch_model.bin").stat().st_size / 3

    # A run that is interrupted after two steps and resumed ends with the same weights.
    run_here(run_glue, glue(files, "two", **adapted, num_steps_per_checkpoint=2, max_steps=4))
    (files / "two" / "ckpt_4.pt").unlink()
    (files / "two" / "ckpt_4.json").unlink()
    run_here(run_glue, glue(files, "two", **adapted, max_steps=4, resume_from_checkpoint=True))
    assert all(torch.equal(tensor, after[name]) for name, tensor in weights(files, "two").items())

    # Base and adapter predict what the whole model does.
    again = {"init_checkpoint": base, "adapter_checkpoint": files / "out" / ADAPTER_FILE, "do_predict": True}
    run_here(run_glue, glue(files, "again", config_file=None, vocab_file=None, **again))
    assert (files / "again" / "test_results.tsv").read_bytes() == (files / "out" / "test_results.tsv").read_bytes()

    with pytest.raises(UsageError, match="the model has the adapter houlsby"):
        run_here(run_glue, glue(files, "x", do_train=True, init_checkpoint=files / "out" / "pytorch_model.bin",
                                config_file=None, vocab_file=None, adapter="pals"))  # fmt: skip
    with pytest.raises(UsageError, match="is another base"):
        wrong = {**again, "init_checkpoint": files / "out" / "pytorch_model.bin"}
        run_here(run_glue, glue(files, "x", config_file=None, vocab_file=None, **wrong))
    capsys.readouterr()


def test_frozen_question_answering_in_inference(files, base, capsys):  # noqa: F811
    run_here(run_squad, squad(files, "out", **FROM_BASE, init_checkpoint=base, adapter="low_rank", max_steps=3))
    capsys.readouterr()
    asked = ["--question", "the stone walks?", "--context", "the stone walks green", "--json", "--device", "cpu"]
    asked += ["--max_seq_length", "48", "--doc_stride", "16", "--max_query_length", "16"]
    whole = ["--init_checkpoint", str(files / "out" / "pytorch_model.bin")]
    parts = ["--init_checkpoint", str(base), "--adapter_checkpoint", str(files / "out" / ADAPTER_FILE)]
    replies = []
    for words in (whole, parts):
        inference.main(parse_args(inference.Config, [*words, *asked]))
        replies.append(json.loads(capsys.readouterr().out))
    assert replies[0] == replies[1]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"adapter": "lora"}, "error: --adapter lora: expected one of none, pals, low_rank"),
        ({"adapter_size": 8}, "error: --adapter_size 8: expected together with --adapter"),
        ({"freeze": True}, "error: --freeze: expected --init_checkpoint"),
        ({"adapter": "pals", "adapter_size": 8}, "error: adapter pals: size 8 is not divisible by its 6 heads"),
    ],
)
def test_wrong_flags_are_one_line(files, changes, message, capsys):  # noqa: F811
    with pytest.raises(UsageError) as raised:
        run_here(run_glue, glue(files, "out", do_train=True, **changes))
    assert f"error: {raised.value}".startswith(message)
    assert not (files / "out").exists()


def test_a_configuration_that_asks_for_two_adapters_is_one_line(files):  # noqa: F811
    path = files / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "mult": True, "top": True}))
    with pytest.raises(UsageError, match=r"config\.json: the configuration asks for mult and top, expected one"):
        run_here(run_glue, glue(files, "out", do_train=True))
