import pytest

from bert.config import parse_args
from bert.errors import UsageError
from bert.glue import GlueConfig, Task, build_task, encode, read_examples
from bert.tokenization import BertTokenizer


def custom(folder, *flags: str) -> Task:
    return build_task(parse_args(GlueConfig, ["--data_dir", str(folder), "--task_name", "Custom", *flags]))


def test_labels_are_those_of_the_training_file(tmp_path, vocab_file):
    (tmp_path / "train.tsv").write_text("label\ttext\nno\tthe river\nyes\tstone\nmaybe\tsong\nno \tgreen\n")
    (tmp_path / "dev.jsonl").write_text('{"text": "stone", "label": "maybe"}\n')
    (tmp_path / "test.csv").write_text('text\n"a, b"\n')
    task = custom(tmp_path)
    assert (task.labels, task.num_labels) == (("maybe", "no", "yes"), 3)
    assert read_examples(task, tmp_path, "dev") == [("dev-0", "stone", None, "maybe")]
    assert read_examples(task, tmp_path, "test") == [("test-1", "a, b", None, None)]
    train = read_examples(task, tmp_path, "train")
    assert [example.guid for example in train] == ["train-1", "train-2", "train-3", "train-4"]
    assert encode(train, task, BertTokenizer(vocab_file), 16).labels["label"].tolist() == [1, 2, 0, 1]


def test_columns_labels_and_files_by_flag(tmp_path):
    (tmp_path / "all.csv").write_text("q,a,score\nwho,me,2\nwhat,that,1\n")
    task = custom(
        tmp_path,
        *["--text_column", "q", "--text_pair_column", "a", "--label_column", "score"],
        *["--labels", "2, 1,0", "--dev_file", "all.csv"],
    )
    assert task.labels == ("2", "1", "0")
    assert read_examples(task, tmp_path, "dev") == [("dev-1", "who", "me", "2"), ("dev-2", "what", "that", "1")]


def test_regression(tmp_path):
    (tmp_path / "train.jsonl").write_text('{"text": "a", "label": 0.5}\n{"text": "b", "label": -3}\n')
    task = custom(tmp_path, "--regression")
    assert (task.is_regression, task.num_labels) == (True, 1)
    assert [example.label for example in read_examples(task, tmp_path, "train")] == ["0.5", "-3"]
    (tmp_path / "train.jsonl").write_text('{"text": "a", "label": "Infinity"}\n')
    with pytest.raises(UsageError, match="line 1: label 'Infinity', expected a number"):
        read_examples(task, tmp_path, "train")


def test_a_label_that_training_did_not_have(tmp_path):
    (tmp_path / "train.tsv").write_text("label\ttext\n" + "".join(f"{letter}\tx\n" for letter in "abcdefghij"))
    (tmp_path / "dev.tsv").write_text("label\ttext\nz\tx\n")
    with pytest.raises(UsageError, match="dev.tsv: line 2: label 'z', expected a, b, c, d, e, f, g, h, ..."):
        read_examples(custom(tmp_path), tmp_path, "dev")


@pytest.mark.parametrize("labels", ["yes", "a,,b", "a,a", ""])
def test_labels_that_make_no_classes(tmp_path, labels):
    with pytest.raises(UsageError, match=f"--labels {labels}: expected at least two different labels"):
        custom(tmp_path, f"--labels={labels}")


def test_flags_that_contradict_each_other(tmp_path):
    with pytest.raises(UsageError, match="--labels a,b: --regression predicts numbers"):
        custom(tmp_path, "--labels", "a,b", "--regression")


def test_a_training_file_with_one_label(tmp_path):
    (tmp_path / "train.tsv").write_text("label\ttext\na\tx\na\ty\n")
    with pytest.raises(UsageError, match="train.tsv: column 'label' has 1 different labels, expected at least two"):
        custom(tmp_path)


def test_files_that_are_missing_or_ambiguous(tmp_path):
    with pytest.raises(UsageError, match="/train.tsv: no such file, expected training data, or --labels"):
        custom(tmp_path)
    (tmp_path / "train.tsv").write_text("label\ttext\na\tx\nb\ty\n")
    (tmp_path / "train.csv").write_text("label,text\na,x\nb,y\n")
    with pytest.raises(UsageError, match="has train.tsv and train.csv, expected one of them or --train_file"):
        custom(tmp_path)
    assert custom(tmp_path, "--train_file", "train.csv").labels == ("a", "b")
