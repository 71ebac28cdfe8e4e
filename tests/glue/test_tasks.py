"""Each task is read from small files in its own published layout."""

import numpy as np
import pytest

from bert.config import parse_args
from bert.errors import UsageError
from bert.glue import TASKS, Example, GlueConfig, build_task, encode, find_task, read_examples
from bert.glue.examples import CHUNK
from bert.tokenization import BertTokenizer

MNLI_HEADER = (
    "index promptID pairID genre sentence1_binary_parse sentence2_binary_parse sentence1_parse sentence2_parse "
    "sentence1 sentence2 label1 gold_label"
)
MNLI_DEV_HEADER = MNLI_HEADER.replace("label1 ", "label1 label2 label3 label4 label5 ")
MNLI_ROW = ["31193n", "government", "( a )", "( b )", "(ROOT a)", "(ROOT b)"]
STS_HEADER = "index genre filename year old_index source1 source2 sentence1 sentence2 score"
STS_ROW = ["main-news", "MSRvid", "2012test", "0001", "none", "none"]
XNLI_HEADER = (
    "language gold_label sentence1_binary_parse sentence2_binary_parse sentence1_parse sentence2_parse sentence1 "
    "sentence2 promptID pairID genre label1 label2 label3 label4 label5 sentence1_tokenized sentence2_tokenized match"
)


def xnli_row(language: str, label: str, first: str, second: str) -> list[str]:
    return [language, label, *[""] * 4, first, second, "1", "1", "facetoface", *[label] * 5, first, second, "True"]


PAIR = ["one thing", "another"]

# task -> split -> (file, rows, examples)
PUBLISHED = {
    "cola": {
        "train": (
            "train.tsv",
            [["gj04", "1", "", 'The sailors rode the "breeze.'], ["bc01", "0", "*", "Bill sank."]],
            [("train-0", 'The sailors rode the "breeze.', None, "1"), ("train-1", "Bill sank.", None, "0")],
        ),
        "dev": ("dev.tsv", [["gj04", "1", "", "Gone."]], [("dev-0", "Gone.", None, "1")]),
        "test": (
            "test.tsv",
            [["index", "sentence"], ["0", "Bill whistled."]],
            [("test-1", "Bill whistled.", None, None)],
        ),
    },
    "sst-2": {
        "train": (
            "train.tsv",
            [["sentence", "label"], ["hide new secretions ", "0"]],
            [("train-1", "hide new secretions ", None, "0")],
        ),
        "test": (
            "test.tsv",
            [["index", "sentence"], ["0", "uneasy mishmash"]],
            [("test-1", "uneasy mishmash", None, None)],
        ),
    },
    "mrpc": {
        "dev": (
            "dev.tsv",
            [
                ["\ufeffQuality", "#1 ID", "#2 ID", "#1 String", "#2 String"],
                ["1", "1355540", "1355592", '" He said', "He was told"],
                ["0", "2", "3", 'Magnarelli "', "said"],
            ],
            [("dev-1", '" He said', "He was told", "1"), ("dev-2", 'Magnarelli "', "said", "0")],
        ),
        "test": (
            "test.tsv",
            [["index", "#1 ID", "#2 ID", "#1 String", "#2 String"], ["0", "1089874", "1089925", *PAIR]],
            [("test-1", *PAIR, None)],
        ),
    },
    "sts-b": {
        "train": (
            "train.tsv",
            [STS_HEADER.split(), ["17", *STS_ROW, *PAIR, "3.800"]],
            [("train-17", *PAIR, "3.800")],
        ),
        "test": ("test.tsv", [STS_HEADER.split()[:-1], ["0", *STS_ROW, *PAIR]], [("test-0", *PAIR, None)]),
    },
    "qqp": {
        "dev": (
            "dev.tsv",
            [
                ["id", "qid1", "qid2", "question1", "question2", "is_duplicate"],
                ["213", "1", "2", *PAIR, "0"],
                ['"', "Was there a line end?", "0"],
                ["214", "1", "2", "a", "tab", "here", "1"],
                ["215", "3", "4", "", *PAIR[:1], "1"],
            ],
            [("dev-213", *PAIR, "0"), ("dev-215", "", "one thing", "1")],
        ),
        "test": (
            "test.tsv",
            [["id", "question1", "question2"], ["0", *PAIR]],
            [("test-0", *PAIR, None)],
        ),
    },
    "mnli": {
        "train": (
            "train.tsv",
            [MNLI_HEADER.split(), ["7", "1", *MNLI_ROW, *PAIR, "neutral", "entailment"]],
            [("train-7", *PAIR, "entailment")],
        ),
        "dev": (
            "dev_matched.tsv",
            [MNLI_DEV_HEADER.split(), ["0", "1", *MNLI_ROW, *PAIR, *["entailment"] * 5, "neutral"]],
            [("dev_matched-0", *PAIR, "neutral")],
        ),
        "test": (
            "test_matched.tsv",
            [MNLI_HEADER.split()[:10], ["0", "1", *MNLI_ROW, *PAIR]],
            [("test-0", *PAIR, None)],
        ),
    },
    "mnli-mm": {
        "dev": (
            "dev_mismatched.tsv",
            [MNLI_DEV_HEADER.split(), ["3", "1", *MNLI_ROW, *PAIR, *["neutral"] * 5, "contradiction"]],
            [("dev_mismatched-3", *PAIR, "contradiction")],
        ),
        "test": (
            "test_mismatched.tsv",
            [MNLI_HEADER.split()[:10], ["0", "1", *MNLI_ROW, *PAIR]],
            [("test-0", *PAIR, None)],
        ),
    },
    "qnli": {
        "dev": (
            "dev.tsv",
            [["index", "question", "sentence", "label"], ["5", *PAIR, "not_entailment"]],
            [("dev-5", *PAIR, "not_entailment")],
        ),
        "test": ("test.tsv", [["index", "question", "sentence"], ["5", *PAIR]], [("test-5", *PAIR, None)]),
    },
    "rte": {
        "train": (
            "train.tsv",
            [["index", "sentence1", "sentence2", "label"], ["0", *PAIR, "entailment"]],
            [("train-0", *PAIR, "entailment")],
        ),
    },
    "wnli": {
        "dev": (
            "dev.tsv",
            [["index", "sentence1", "sentence2", "label"], ["9", *PAIR, "1"]],
            [("dev-9", *PAIR, "1")],
        ),
    },
    "ax": {"test": ("AX.tsv", [["index", "sentence1", "sentence2"], ["4", *PAIR]], [("test-4", *PAIR, None)])},
    "xnli": {
        "train": (
            "multinli/multinli.train.zh.tsv",
            [["premise", "hypo", "label"], ["你 知道", "好", "contradictory"], ["家长 队", "坏", "neutral"]],
            [("train-1", "你 知道", "好", "contradiction"), ("train-2", "家长 队", "坏", "neutral")],
        ),
        "dev": (
            "xnli.dev.tsv",
            [XNLI_HEADER.split(), xnli_row("de", "neutral", "gut", "böse"), xnli_row("zh", "entailment", "好", "坏")],
            [("dev-2", "好", "坏", "entailment")],
        ),
        "test": (
            "xnli.test.tsv",
            [XNLI_HEADER.split(), xnli_row("zh", "entailment", "好", "坏")],
            [("test-1", "好", "坏", None)],
        ),
    },
}


def write(folder, file: str, rows: list[list[str]]) -> None:
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    (folder / file).write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf8", newline="\n")


@pytest.mark.parametrize(("name", "split"), [(name, split) for name, splits in PUBLISHED.items() for split in splits])
def test_published_layouts(tmp_path, name, split):
    file, rows, expected = PUBLISHED[name][split]
    write(tmp_path, file, rows)
    assert read_examples(find_task(name), tmp_path, split) == expected


def test_every_task_was_read():
    assert PUBLISHED.keys() == TASKS.keys()


def test_labels_and_metrics_of_the_published_tables():
    binary, nli, entailment = ("0", "1"), ("contradiction", "entailment", "neutral"), ("entailment", "not_entailment")
    expected = {
        "cola": (binary, {"mcc"}),
        "sst-2": (binary, {"acc"}),
        "mrpc": (binary, {"acc", "f1", "acc_and_f1"}),
        "sts-b": ((), {"pearson", "spearmanr", "corr"}),
        "qqp": (binary, {"acc", "f1", "acc_and_f1"}),
        "mnli": (nli, {"acc"}),
        "mnli-mm": (nli, {"acc"}),
        "qnli": (entailment, {"acc"}),
        "rte": (entailment, {"acc"}),
        "wnli": (binary, {"acc"}),
        "ax": (nli, {"acc"}),
        "xnli": (nli, {"acc"}),
    }
    values = np.array([0, 1, 1])
    assert {name: (task.labels, set(task.metrics(values, values))) for name, task in TASKS.items()} == expected
    assert [task.num_labels for task in TASKS.values()] == [2, 2, 2, 1, 2, 3, 3, 2, 2, 2, 3, 3]


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("CoLA", "cola"),
        ("SST2", "sst-2"),
        ("sst", "sst-2"),
        ("STSb", "sts-b"),
        ("MNLI-m", "mnli"),
        ("mnli_mm", "mnli-mm"),
        ("mnli_mismatched", "mnli-mm"),
        ("MNLI-mm", "mnli-mm"),
        ("AX", "ax"),
    ],
)
def test_names_of_tasks(name, task):
    assert find_task(name) is TASKS[task]


def test_no_two_tasks_share_a_name():
    names = [name.replace("-", "") for task in TASKS.values() for name in (task.name, *task.aliases)]
    assert len(set(names)) == len(names)


def test_an_unknown_task_lists_the_known_ones():
    with pytest.raises(UsageError) as error:
        find_task("squad")
    known = "cola, sst-2, mrpc, sts-b, qqp, mnli, mnli-mm, qnli, rte, wnli, ax, xnli, custom"
    assert str(error.value) == f"--task_name squad: expected one of {known}"


def test_skipped_rows_are_reported(tmp_path):
    write(tmp_path, "dev.tsv", PUBLISHED["qqp"]["dev"][1])
    notices: list[str] = []
    read_examples(find_task("qqp"), tmp_path, "dev", notices.append)
    assert notices == [
        f"{tmp_path}/dev.tsv: skipped 2 lines with a wrong number of columns (first: line 3)",
    ]


@pytest.mark.parametrize(
    ("task", "split", "rows", "message"),
    [
        (
            "mrpc",
            "dev",
            [PUBLISHED["mrpc"]["dev"][1][0], ["2", "1", "2", *PAIR]],
            "dev.tsv: line 2: label '2', expected 0, 1",
        ),
        ("cola", "train", [["source", "label", "mark", "sentence"]], "train.tsv: line 1: label 'label', expected 0, 1"),
        ("cola", "train", [["gj04", "1", "Gone."]], "train.tsv: line 1: 3 columns, expected 4: source, label, mark, "),
        ("sst-2", "dev", [["index", "sentence"], ["0", "a"]], "dev.tsv: line 1: column 'label' is missing, the "),
        ("sst-2", "dev", [["sentence", "label"]], "dev.tsv: no examples, expected at least one"),
        ("sst-2", "dev", [], "dev.tsv: the file is empty, expected one example per line"),
        ("sts-b", "dev", [STS_HEADER.split(), ["0", *STS_ROW, *PAIR, "high"]], "'high', expected a number from 0 to 5"),
        ("sts-b", "dev", [STS_HEADER.split(), ["0", *STS_ROW, *PAIR, "5.1"]], "'5.1', expected a number from 0 to 5"),
        ("sts-b", "dev", [STS_HEADER.split(), ["0", *STS_ROW, *PAIR, "nan"]], "'nan', expected a number from 0 to 5"),
        (
            "rte",
            "dev",
            [["index", "sentence1", "sentence2", "label"], *[["0", *PAIR, "entailment"]] * 2],
            "dev.tsv: line 3: id dev-0 repeats that of line 2",
        ),
        (
            "qqp",
            "test",
            [["id", "question1", "question2"], ["0", "a"]],
            "test.tsv: line 2: 2 columns, expected 3: id, question1, question2",
        ),
    ],
)
def test_errors_name_file_and_line(tmp_path, task, split, rows, message):
    write(tmp_path, f"{split}.tsv", rows)
    with pytest.raises(UsageError) as error:
        read_examples(find_task(task), tmp_path, split)
    assert str(error.value).startswith(f"{tmp_path}/{split}.tsv: ")
    assert message in str(error.value)


def test_a_training_set_may_repeat_an_id(tmp_path):
    write(tmp_path, "train.tsv", [["index", "sentence1", "sentence2", "label"], *[["0", *PAIR, "entailment"]] * 2])
    assert len(read_examples(find_task("rte"), tmp_path, "train")) == 2


def test_a_split_that_a_task_does_not_have(tmp_path):
    with pytest.raises(UsageError, match="--task_name ax: no train examples, it has test"):
        read_examples(find_task("ax"), tmp_path, "train")


def test_a_language_of_xnli(tmp_path):
    write(tmp_path, "xnli.dev.tsv", PUBLISHED["xnli"]["dev"][1])
    config = parse_args(GlueConfig, ["--data_dir", str(tmp_path), "--task_name", "XNLI", "--xnli_language", "de"])
    task = build_task(config)
    assert read_examples(task, tmp_path, "dev") == [("dev-1", "gut", "böse", "neutral")]
    assert task.layouts["train"].file == "multinli/multinli.train.de.tsv"
    with pytest.raises(UsageError, match=r"xnli.dev.tsv: no examples with language 'sw', expected at least one"):
        read_examples(build_task(GlueConfig(str(tmp_path), "xnli", "sw")), tmp_path, "dev")


def test_a_published_task_refuses_the_flags_of_custom():
    config = parse_args(GlueConfig, ["--data_dir", "x", "--task_name", "mrpc", "--label_column", "Quality"])
    with pytest.raises(UsageError, match="--label_column: --task_name is mrpc, only custom accepts this flag"):
        build_task(config)


def test_a_missing_library_is_found_before_training(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sklearn.metrics", None)
    with pytest.raises(UsageError, match=r"sklearn.metrics is not installed, expected: pip install '.\[finetune\]'"):
        build_task(GlueConfig("x", "mrpc"))


def test_encoding_pairs_and_classes(vocab_file):
    tokenizer = BertTokenizer(vocab_file)
    examples = [Example("dev-0", "the river", "green", "neutral"), Example("dev-1", "stone", "the song", "entailment")]
    inputs = encode(examples, find_task("mnli"), tokenizer, 5)
    words = tokenizer.convert_ids_to_tokens(inputs.tokens)
    assert words == ["[CLS]", "the", "[SEP]", "green", "[SEP]", "[CLS]", "stone", "[SEP]", "the", "[SEP]"]
    assert (inputs.offsets.tolist(), inputs.segment_starts.tolist()) == ([0, 5, 10], [3, 3])
    assert inputs.labels["label"].tolist() == [2, 1]
    assert inputs.labels["label"].dtype == np.int64


def test_encoding_values_and_test_sets(vocab_file):
    tokenizer = BertTokenizer(vocab_file)
    values = encode([Example("dev-0", "river", "stone", "3.800")], find_task("sts-b"), tokenizer, 8).labels["label"]
    assert (values.dtype, values.tolist()) == (np.float32, [np.float32(3.8)])
    single = encode([Example("test-1", "the river")], find_task("cola"), tokenizer, 8)
    assert (single.segment_starts.tolist(), single.lengths.tolist(), single.labels) == ([4], [4], {})


def test_encoding_more_than_a_chunk(vocab_file):
    tokenizer = BertTokenizer(vocab_file)
    texts = ["the river"] * CHUNK + ["stone"] + ["green song on"] * CHUNK
    inputs = encode([Example(f"dev-{i}", text, None, "1") for i, text in enumerate(texts)], TASKS["cola"], tokenizer, 8)
    assert inputs.lengths.tolist() == [len(text.split()) + 2 for text in texts]
    assert (len(inputs), len(inputs.labels["label"])) == (len(texts), len(texts))
    middle = inputs.tokens[inputs.offsets[CHUNK] : inputs.offsets[CHUNK + 1]]
    assert tokenizer.convert_ids_to_tokens(middle) == ["[CLS]", "stone", "[SEP]"]
    assert (inputs.tokens.dtype, inputs.offsets.dtype, inputs.segment_starts.dtype) == (np.int32, np.int64, np.int32)


def test_predictions_of_logits():
    logits = np.array([[0.1, 0.7, 0.2], [3.0, -1.0, 2.0]], np.float32)
    assert find_task("mnli").predictions(logits).tolist() == [1, 0]
    assert find_task("sts-b").predictions(np.array([[4.5], [-0.5]])).tolist() == [4.5, -0.5]
