"""The benchmark of adapters: the work that it counts, and the command runs."""

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.multi_task import MultiTaskBenchmarkConfig, forward_flops, main
from bert.config import parse_args
from bert.model.adapters.config import KEYS, build_adapter_config
from bert.model.bert import BertForMultiTask
from bert.model.config import BertConfig
from bert.model.objective import MultiTaskObjective
from bert.sequences import collate, from_rows


@pytest.mark.parametrize("kind", KEYS)
def test_flops_are_those_that_pytorch_counts(kind):
    """Of sequences of one length, so that there is no padding; less the one-hot product of the token types.

    PyTorch sees the products of the attention "matmul" only.
    """
    config = BertConfig(40, hidden_size=48, num_hidden_layers=3, num_attention_heads=4, intermediate_size=96)
    adapter = build_adapter_config(kind, 48)
    labels = {"task": np.array([0, 0, 1]), "label": np.zeros(3, np.float32)}
    batch = collate(from_rows([[1] * 7] * 3, [4] * 3, labels), np.arange(3))
    model = BertForMultiTask(config, [2, 2], "matmul", adapters=[adapter] * 2).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        MultiTaskObjective(model).predict(batch)
    assert counter.get_total_flops() == forward_flops(config, adapter, batch) + 2 * 21 * 2 * 48


def test_the_command_prints_a_row_for_each_kind(capsys):
    flags = "--num_hidden_layers 1 --hidden_size 64 --tasks 2 --sequences 1 --rounds 1 --warmup 1 --adapters lhuc pals"
    main(parse_args(MultiTaskBenchmarkConfig, flags.split()))
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows[1:]] == ["| none", "| lhuc", "| pals"]
    assert rows[1][1] == rows[1][3] == rows[1][5] == "1.00 x" and {len(row) for row in rows} == {8}
