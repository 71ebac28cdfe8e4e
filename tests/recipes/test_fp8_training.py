"""--fp8 on the real command line, emulated on the CPU."""

import pytest
import torch
from recipes.conftest import pretraining_flags, run  # pyright: ignore[reportMissingImports]

import run_pretraining
from bert.checkpoint import load
from bert.config import parse_args
from bert.errors import UsageError


def pretrain(*args, **changes) -> None:
    flags = {"fp8": True, "device": "cpu", **changes}
    run_pretraining.main(parse_args(run_pretraining.Config, pretraining_flags(*args, **flags)))


def test_resume_is_bitwise_equal_and_without_fp8_possible(corpus, tmp_path, capsys):
    """Histories and scales are in the checkpoint, and the weights carry the names they always have."""
    pretrain(corpus, tmp_path / "straight")
    pretrain(corpus, tmp_path / "resumed", steps_this_run=4)
    pretrain(corpus, tmp_path / "resumed", resume_from_checkpoint=True)
    straight, resumed = (load(tmp_path / name / "ckpt_6.pt") for name in ("straight", "resumed"))
    for part in (lambda state: state["model"], lambda state: state["grad_scaler"]["fp8"]):
        for name, value in part(straight).items():
            assert torch.equal(value, part(resumed)[name]) if torch.is_tensor(value) else value == part(resumed)[name]
    history = straight["grad_scaler"]["fp8"]["history"]
    assert (history[:6] > 0).all()  # two layers of four products, of which each has three tensors
    assert not history[6:].any()
    assert history.shape[1:] == (8, 3)
    assert not [name for name in straight["model"] if "fp8" in name]
    pretrain(corpus, tmp_path / "resumed", resume_from_checkpoint=True, max_steps=7, fp8=None)
    assert "fp8" not in load(tmp_path / "resumed/ckpt_7.pt")["grad_scaler"]
    assert "--fp8: emulated on a CPU" in capsys.readouterr().out


def test_fp8_beside_fp16_writes_nothing(corpus, tmp_path):
    with pytest.raises(UsageError, match="--fp8 and --fp16: choose one"):
        pretrain(corpus, tmp_path / "out", fp16=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_two_ranks_agree_on_scales_and_equal_one(corpus, tmp_path):
    flags = {"config_file": corpus / "config_without_dropout.json", "max_steps": 4, "learning_rate": 1e-4}
    pretrain(corpus, tmp_path / "one", train_batch_size=16, **flags)
    run(pretraining_flags(corpus, tmp_path / "two", train_batch_size=8, fp8=True, **flags), processes=2)
    one, two = (load(tmp_path / name / "ckpt_4.pt") for name in ("one", "two"))
    for name, value in one["model"].items():
        if "key.bias" not in name:  # without a gradient in theory
            torch.testing.assert_close(two["model"][name], value, rtol=1e-5, atol=1e-5)
    scales, of_two = (state["grad_scaler"]["fp8"]["scale"] for state in (one, two))
    # The gradient of a rank is that of the sum over ranks, because DDP takes the mean: twice as large for two.
    torch.testing.assert_close(scales / of_two, torch.tensor([1.0, 1.0, 2.0]).expand(8, 3), rtol=1e-3, atol=0)
