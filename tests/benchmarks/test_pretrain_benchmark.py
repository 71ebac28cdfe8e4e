"""The pre-training benchmark: its mixes of lengths, micro-batches of the same sequences, and its rows."""

import json

import pytest
import torch

from benchmarks import pretrain
from benchmarks.pretrain import BenchmarkConfig, draw_lengths, micro_batches
from bert.config import parse_args

CPU = torch.device("cpu")


def config(*words: str) -> BenchmarkConfig:
    return parse_args(BenchmarkConfig, ["--device", "cpu", "--compile", "off", *words])


@pytest.mark.parametrize("sequences", ["48", "1000"])
def test_mlperfs_mix(sequences):
    """254.5 tokens on average. BERT-large: 604 MFLOP a token, 98,304 per pair of tokens, 64.6 MFLOP a prediction."""
    lengths = draw_lengths(config("--lengths", "mlperf", "--max_seq_length", "512", "--sequences", sequences)).double()
    assert float(lengths.mean()) == pytest.approx(254.5, abs=1)
    assert float(lengths.max()) == 512
    forward = 604.0e6 * lengths + 98_304 * lengths**2 + 64.6e6 * 0.15 * lengths
    assert 3 * float(forward.mean()) == pytest.approx(498e9, rel=0.01)


def test_micro_batches_are_a_step_in_parts():
    settings = config("--sequences", "6", "--accumulation", "4", "--max_seq_length", "64")
    whole, parts = (micro_batches(settings, count, 100, CPU) for count in (1, 4))
    lengths = [sorted(torch.cat([each.cu_seqlens.diff() for each in some]).tolist()) for some in (whole, parts)]
    assert lengths[0] == lengths[1] and len(lengths[0]) == 24
    assert [batch.num_sequences for batch in parts] == [6] * 4


def test_it_runs(capsys, monkeypatch, tmp_path):
    pytest.importorskip("transformers")
    tiny = {"num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16}
    monkeypatch.setitem(pretrain.PRESETS, "small", tiny)
    monkeypatch.setattr(pretrain, "measure_ceiling", lambda device, dtype: 1e11)
    words = [
        "--sequences",
        "2",
        "--accumulation",
        "2",
        "--max_seq_length",
        "32",
        "--rounds",
        "1",
        "--warmup",
        "1",
        "--peers",
        "eager",
    ]
    pretrain.main(config(*words, "--lengths", "mlperf", "--json", str(tmp_path / "rows.json")))
    out, written = capsys.readouterr().out, json.loads((tmp_path / "rows.json").read_text())
    assert "2 x 2 sequences" in out
    names = ["this suite", "this suite, 1 x 4 sequences", "transformers, eager fp32"]
    assert [row["contender"] for row in written["rows"]] == names
    assert all(f"| {name} |" in out for name in names)
    assert written["rows"][0]["faster"] == 1
    assert "torch" in written["device"]
