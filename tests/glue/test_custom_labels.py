"""Labels of one's own data that are missing, or spelled in two ways."""

import json

import pytest

from bert.config import parse_args
from bert.errors import UsageError
from bert.glue import GlueConfig, build_task


def labels_of(folder, *flags: str) -> tuple[str, ...]:
    return build_task(parse_args(GlueConfig, ["--data_dir", str(folder), "--task_name", "custom", *flags])).labels


def write_json(folder, *labels: str) -> None:
    """Write a training file with these labels, as JSON has them."""
    lines = [f'{{"text": "t", "label": {label}}}\n' for label in labels]
    (folder / "train.jsonl").write_text("".join(lines))


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["1", '"1"', "0"], ("0", "1")),  # a number is the text that it is written as
        (["1.0", "0.0", '"1.0"'], ("0.0", "1.0")),
        (["true", "false", '"true"'], ("false", "true")),
        (['" yes"', '"yes"', '"no\\u00a0"'], ("no", "yes")),  # a no-break space
        (['"none"', '"Inf"', '"for"'], ("Inf", "for", "none")),  # words that could be taken for no value or a number
        (["1e3", '"10"'], ("10", "1000.0")),
    ],
)
def test_one_class_for_one_spelling(tmp_path, labels, expected):
    write_json(tmp_path, *labels)
    assert labels_of(tmp_path) == expected


@pytest.mark.parametrize("label", ['""', '"  "', '"nan"', "NaN", '"NULL"', '"N/A"', "null", "[1]", '{"a": 1}'])
def test_a_missing_label_is_an_error_that_names_the_line(tmp_path, label):
    write_json(tmp_path, "1", "0", label)
    with pytest.raises(UsageError, match=r"train.jsonl: line 3: (label|'label' is) ") as raised:
        labels_of(tmp_path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("1", "1.0"),
        ("1", "true"),
        ('"1"', "1.0"),
        ('"01"', "1"),
        ("1000", "1e3"),
        ('"Yes"', '"yes"'),
        ('"\\uff59\\uff45\\uff53"', '"yes"'),  # full width
        ('"caf\\u00e9"', '"cafe\\u0301"'),  # the accent composed and on its own
        ('"very  good"', '"very good"'),
    ],
)
def test_two_spellings_are_an_error_that_names_both_lines(tmp_path, first, second):
    write_json(tmp_path, first, '"other"', second)
    with pytest.raises(UsageError, match="train.jsonl: line 3: label .*, but .* in line 1; expected one spelling"):
        labels_of(tmp_path)


def test_numbers_beside_true_and_false(tmp_path):
    write_json(tmp_path, "true", "0")
    with pytest.raises(UsageError, match="train.jsonl: column 'label' has true, 0; expected one kind"):
        labels_of(tmp_path)


@pytest.mark.parametrize("name", ["train.tsv", "train.csv"])
def test_tables_have_the_same_rules(tmp_path, name):
    comma = "," if name.endswith("csv") else "\t"
    for bad, line in (("", 3), ("nan", 3), ("Yes", 4)):
        rows = ["text", "label"], ["a", "yes"], ["b", "" if bad == "" else "no" if bad == "Yes" else bad], ["c", bad]
        (tmp_path / name).write_text("\n".join(comma.join(row) for row in rows) + "\n")
        with pytest.raises(UsageError, match=f"{name}: line {line}: label {bad!r}"):
            labels_of(tmp_path)


def test_stated_labels_may_be_any(tmp_path):
    write_json(tmp_path, *map(json.dumps, ["nan", "Yes", "yes"]))
    assert labels_of(tmp_path, "--labels", "nan,Yes,yes") == ("nan", "Yes", "yes")
