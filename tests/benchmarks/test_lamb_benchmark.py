"""The LAMB benchmark: the sizes that it measures, and a row for every contender."""

import pytest

from benchmarks.lamb import LambBenchmarkConfig, bert_shapes, count, main, shapes_of
from bert.errors import UsageError


@pytest.mark.parametrize(("layers", "hidden", "expected"), [(12, 768, 110_106_428), (24, 1024, 336_226_108)])
def test_shapes_add_up_to_the_published_model(layers, hidden, expected):
    """transformers' BertForPreTraining for bert-base-uncased and bert-large-uncased."""
    assert count(bert_shapes(layers, hidden, vocabulary=30522)) == expected


@pytest.mark.parametrize("wanted", [1_000_000, 2_000_000, 28_000_000, 75_000_000])
def test_a_number_of_parameters_is_matched_within_a_percent(wanted):
    assert count(shapes_of(str(wanted))) == pytest.approx(wanted, rel=0.01)


@pytest.mark.parametrize("wrong", ["huge", "-5", "999"])
def test_wrong_sizes_are_refused(wrong):
    with pytest.raises(UsageError, match="--parameters"):
        shapes_of(wrong)


@pytest.mark.parametrize(
    ("device", "implementations"),
    [
        ("cpu", "auto,foreach,reference"),
        pytest.param("cuda", "triton,persistent,one_wave,foreach", marks=pytest.mark.gpu),
    ],
)
def test_every_contender_has_a_row(capsys, device, implementations):
    main(LambBenchmarkConfig("1000000", device, "bf16", implementations, rounds=2, warmup=1))
    rows = [line.split("|")[1].strip() for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert rows == ["contender", *(f"Lamb, {name}" for name in implementations.split(",")), "AdamW, fused"]
