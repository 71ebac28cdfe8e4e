"""Differences of two models, against values worked out by hand."""

import numpy as np
import pytest
import torch

from bert.checkpoint.compare import IGNORED, Inputs, ModelOutputs, compare, draw, labelled, pad, run
from bert.checkpoint.formats import HEADS, BertWithHeads
from bert.errors import UsageError
from bert.sequences import from_rows

INPUTS = Inputs(
    torch.tensor([[2, 7, 8, 3, 9, 3, 0], [2, 7, 3, 0, 0, 0, 0]]),
    torch.tensor([[0, 0, 0, 0, 1, 1, 0], [0, 0, 0, 0, 0, 0, 0]]),
    torch.tensor([[1, 1, 1, 1, 1, 1, 0], [1, 1, 1, 0, 0, 0, 0]]),
)


def outputs(*numbers: float, heads: dict[str, float] | None = None, pooled: bool = True) -> ModelOutputs:
    """Layers of one token and two channels, each full of one number."""
    logits = {name: torch.full((1, 2), value) for name, value in (heads or {}).items()}
    return ModelOutputs([torch.full((1, 2), n) for n in numbers], torch.zeros(1, 2) if pooled else None, logits, {})


def test_padding():
    found = pad(from_rows([[2, 7, 8, 3, 9, 3], [2, 7, 3]], [4, 3]))
    assert all(torch.equal(a, b[:, :6]) for a, b in zip(found, INPUTS, strict=True))


def test_rms_and_its_share():
    a, b = outputs(3.0, 2.0, heads={"classifier": 10.0}), outputs(3.0, 2.5, heads={"classifier": 9.0, "other": 1.0})
    found = compare(a, b)
    assert [each.name for each in found] == ["layer 1", "layer 2", "pooled", "classifier"]
    assert [each.rms for each in found] == [0, 0.5, 0, 1]
    assert [each.relative for each in found] == [0, 0.25, 0, 0.1]
    assert [each.judged for each in found] == [0, 0.5, 0, 0.1]  # layers by RMS, heads by their share


def test_one_channel_of_two_that_differs():
    a, b = outputs(1.0), outputs(1.0)
    b.layers[0][0, 1] = 3.0
    assert compare(a, b)[0].rms == pytest.approx(np.sqrt((0 + 4) / 2))


def test_what_one_side_lacks_is_not_compared():
    assert [each.name for each in compare(outputs(1.0), outputs(1.0, pooled=False))] == ["layer 1"]


def test_another_depth_is_an_error():
    with pytest.raises(UsageError, match="--a has 2 layers of width 2, --b 1 of width 2"):
        compare(outputs(1.0, 2.0), outputs(1.0))


def test_labels_follow_from_the_input():
    words = torch.zeros(2, 7, 5)
    _, labels = labelled("cls.predictions", words, INPUTS)
    assert labels.tolist() == [IGNORED, 7, *[IGNORED] * 5, IGNORED, 7, *[IGNORED] * 5]
    assert labelled("qa_outputs, start", words, INPUTS)[1].tolist() == [4, 0]
    assert labelled("qa_outputs, end", words, INPUTS)[1].tolist() == [5, 2]
    assert labelled("classifier", torch.zeros(2, 3), INPUTS)[1].tolist() == [0, 0]


def test_a_model_equals_itself_and_not_its_neighbour(tiny_config):
    torch.manual_seed(0)
    model = BertWithHeads(tiny_config, HEADS, num_labels=3)
    model.initialize()
    first = run(model, INPUTS)
    assert [layer.shape for layer in first.layers] == [(9, 32)] * 3  # 9 real tokens
    assert len(first.heads) == len(first.losses) == 5
    assert {each.rms for each in compare(first, run(model, INPUTS))} == {0.0}
    with torch.no_grad():
        model.bert.encoder.layer[1].output.dense.bias[0] += 0.1
    differences = {each.name: each.rms for each in compare(first, run(model, INPUTS))}
    assert differences["layer 1"] == 0 and differences["layer 2"] > 0.01 and differences["classifier"] > 0


@pytest.mark.parametrize("b", [1.0, 1.5])
def test_the_plot_is_drawn_also_where_nothing_differs(tmp_path, b):
    figure = draw(compare(outputs(1.0), outputs(b)), 1e-5, "a and b")
    figure.savefig(tmp_path / "rms.png")
    assert (tmp_path / "rms.png").read_bytes()[:4] == b"\x89PNG"
    assert [bar.get_height() for bar in figure.axes[0].patches] == [abs(1.0 - b), 0]
