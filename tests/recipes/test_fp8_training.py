"""--fp8 on the real command line, emulated on the CPU."""

import pytest
import torch
from recipes.conftest import pretraining_flags  # pyright: ignore[reportMissingImports]

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
