"""inference.py with a model that is set by hand: it answers "bright", wherever that is in the text."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from recipes.conftest import ROOT  # pyright: ignore[reportMissingImports]

import inference
from bert.config import parse_args, run_command
from bert.errors import UsageError
from bert.finetune.predict import Outputs
from bert.model.bert import BertForQuestionAnswering
from bert.model.config import BertConfig
from bert.squad.answers import Answer, Candidate
from bert.squad.examples import example_from_text
from bert.squad.reader import ReaderConfig
from bert.squad.task import WindowConfig, answer, encode_questions
from bert.squad.terminal import highlighted, render, sentence_around, wants_color
from bert.tokenization import BertTokenizer

SCORE = 5.0  # start and end logit of "bright"; that of any other piece is -5
LONG = (
    "The song and the table. " * 40 + "Under the stone walks a Bright, green river. " + "The song and the table. " * 40
)
CONFIG = {
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "max_position_embeddings": 64,
}


def set_by_hand(config: BertConfig, bright: int) -> BertForQuestionAnswering:
    """Embeddings pass all layers unchanged; "bright" points in one direction, every other piece in the opposite one."""
    model = BertForQuestionAnswering(config)
    direction = torch.tensor([1.0, -1.0] * 4)  # mean 0, variance 1: layer normalisation keeps it
    for name, parameter in model.named_parameters():
        parameter.data.fill_(1.0 if name.endswith("LayerNorm.weight") else 0.0)
    words = model.bert.embeddings.word_embeddings.weight.data
    words[:] = -direction
    words[bright] = direction
    model.qa_outputs.weight.data[:] = direction * SCORE / 8
    return model


@pytest.fixture
def files(tmp_path, vocab_file) -> Path:
    tokenizer = BertTokenizer(vocab_file)
    config = BertConfig(vocab_size=tokenizer.vocab_size, **CONFIG)
    model = set_by_hand(config, tokenizer.vocab["bright"])
    state = {"model": model.state_dict(), "model_config": config.to_dict(), "tokenizer": tokenizer.state_dict()}
    torch.save(state, tmp_path / "pytorch_model.bin")
    torch.save({**state, "version_2_with_negative": True}, tmp_path / "version_2.bin")
    torch.save({"model": state["model"]}, tmp_path / "weights.bin")
    headless = {name: value for name, value in model.state_dict().items() if "qa_outputs" not in name}
    torch.save({**state, "model": headless}, tmp_path / "headless.bin")
    (tmp_path / "config.json").write_text(config.to_json_string())
    return tmp_path


def flags(files: Path, **changes: object) -> list[str]:
    values: dict[str, object] = {
        "init_checkpoint": files / "pytorch_model.bin",
        "question": "What walks?",
        "context": "The Bright river.",
        "max_seq_length": 32,
        "max_query_length": 8,
        "doc_stride": 8,
        "no_cuda": True,
        **changes,
    }
    return [f"--{name}={value}" for name, value in values.items() if value is not None]


def ask(files: Path, **changes: object) -> None:
    inference.main(parse_args(inference.Config, flags(files, **changes)))


def test_the_published_output(files, capsys):
    ask(files)
    out = capsys.readouterr().out
    head = ["question:  What walks?", "context:  The Bright river.", "", "", "Bright", "", "["]
    assert out.splitlines()[:7] == head
    (best,) = json.loads(out[out.index("\n[") :])
    assert list(best) == ["text", "probability", "start_logit", "end_logit"]
    assert (best["text"], best["start_logit"], best["end_logit"]) == ("Bright", pytest.approx(5), pytest.approx(5))


def test_probabilities_are_among_the_twenty_best_however_few_are_shown(files, capsys):
    found = []
    for count in (1, 3):
        ask(files, json=True, n_best_size=count)
        found.append(json.loads(capsys.readouterr().out)["nbest"])
    assert [len(each) for each in found] == [1, 3]
    assert found[0][0] == found[1][0]
    # "Bright" has 10, the 3 spans that begin or end in it 0 ("The Bright", "Bright river", "Bright river."),
    # the 6 others of the words "The", "Bright", "river" and "." have -10.
    others = 3 * np.exp(-10) + 6 * np.exp(-20)
    assert found[0][0]["probability"] == pytest.approx(1 / (1 + others), rel=1e-6)


def test_an_answer_beyond_the_first_window(files, capsys):
    ask(files, context=LONG, json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["answer"] == "Bright"
    assert found["context"] == LONG
    assert "null_odds" not in found
    # Even a window of all 64 positions would have ended before it.
    assert len(LONG[: LONG.index("Bright")].split()) > 64


@pytest.mark.parametrize("settings", [{}, {"bf16": True}, {"fp16": True, "seed": 3}])
def test_casing_comes_from_the_vocabulary_without_its_flag(files, capsys, settings):
    own = {"init_checkpoint": files / "weights.bin", "config_file": files / "config.json"}
    ask(files, **own, vocab_file=files / "vocab.txt", bert_model="bert-large-uncased", json=True, **settings)
    assert json.loads(capsys.readouterr().out)["answer"] == "Bright"


@pytest.mark.parametrize(
    ("changes", "answer"),
    [
        ({"context": "The Bright river."}, "Bright"),  # odds of no answer: -10 - 10
        ({"context": "The green river."}, ""),  # -10 + 10
        ({"context": "The green river.", "null_score_diff_threshold": 0.5}, "The"),
        ({"context": "The Bright river.", "null_score_diff_threshold": -20.5}, ""),
    ],
)
@pytest.mark.parametrize("by_flag", [True, False], ids=["flag", "checkpoint"])
def test_no_answer(files, capsys, changes, answer, by_flag):
    name = "pytorch_model.bin" if by_flag else "version_2.bin"
    more = {"init_checkpoint": files / name, "version_2_with_negative": by_flag or None, **changes}
    ask(files, json=True, **more)
    found = json.loads(capsys.readouterr().out)
    assert found["answer"] == answer
    assert found["null_odds"] == pytest.approx(-20 if "Bright" in changes["context"] else 0, abs=1e-4)
    ask(files, **more)
    assert capsys.readouterr().out.splitlines()[4] == (answer or "(no answer)")


def converse(files: Path, monkeypatch, text: str, **changes: object) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    ask(files, interactive=True, question=None, context=None, **changes)


def test_a_conversation_over_a_pipe(files, capsys, monkeypatch):
    (files / "text.txt").write_text("The stone is on the table.\nA song, bright\nand green. The river walks.\n")
    lines = ["", "The river walks.", "The Bright stone is on the table.", "", "What is there?", "And?", "", "@none.txt"]
    lines += [f"@{files / 'text.txt'}", "Which song?"]
    converse(files, monkeypatch, "\n".join(lines) + "\n")
    out, err = capsys.readouterr()
    blocks = [block.splitlines() for block in out.split("\n\n") if block]
    assert [block[0] for block in blocks] == [
        "The [Bright] stone is on the table.",
        "The [Bright] stone is on the table.",
        "A song, [bright] and green.",
    ]
    assert all(len(block) == 4 for block in blocks)  # three answers
    assert blocks[0][1].split() == ["100.0%", "Bright"]
    assert err.splitlines() == ["error: none.txt: No such file or directory"]


def test_without_question_and_context_an_example_is_asked(files, capsys):
    ask(files, question=None, context=None, max_query_length=6)
    assert capsys.readouterr().out.startswith("question:  What was the ferry called?\ncontext:  Amber Lake lies")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_text_with_a_byte_order_mark(files, capsys, monkeypatch, encoding):
    (files / "text.txt").write_text("The bright river.", encoding=encoding)
    converse(files, monkeypatch, f"\ufeff@{files / 'text.txt'}\nWhat?\n", json=True)
    assert json.loads(capsys.readouterr().out)["context"] == "The bright river."


def test_a_conversation_in_json_has_an_object_a_line(files, capsys, monkeypatch):
    converse(files, monkeypatch, "The bright river.\n\nWhat?\nWhy?\n", json=True)
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["question"] for each in found] == ["What?", "Why?"]


@pytest.mark.parametrize("text", ["", "\n\n", "only a text", "a text\n\n", "@"])
def test_a_conversation_may_end_anywhere(files, capsys, monkeypatch, text):
    converse(files, monkeypatch, text)
    assert capsys.readouterr().out == ""


def test_what_is_not_text_ends_a_conversation(files, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"the river\n\n\xff\n"), encoding="utf8"))
    with pytest.raises(UsageError, match="stdin: not utf-8 text"):
        ask(files, interactive=True, question=None, context=None)


@pytest.mark.slow
def test_a_real_process(files):
    process = subprocess.run(
        [
            sys.executable,
            str(ROOT / "inference.py"),
            *flags(files, interactive=True, question=None, context=None, n_best_size=3),
        ],
        input="The bright river.\n\nWhat?",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout.partition("\n")[0] == "The [bright] river."


def test_a_blank_question_is_one_line_and_exit_code_2(files, capsys):
    with pytest.raises(SystemExit) as ended:
        run_command(inference.main, inference.Config, flags(files, question=" "))
    assert ended.value.code == 2
    assert capsys.readouterr() == ("", "error: question ' ': expected some text\n")


BAD = [
    ({"question": "\t"}, "question .*: expected some text"),
    ({"context": " "}, "context ' ': expected some text"),
    ({"context": "\u200b"}, "context .*: expected some text"),  # the tokenizer keeps nothing of it
    (
        {"question": None},
        "^--context: expected --question and --context, both or neither; --interactive asks for both$",
    ),
    ({"context": None}, "^--question: expected --question and --context, both or neither"),
    ({"interactive": True}, "^--question: expected without --interactive"),
    ({"interactive": True, "question": None}, "^--context: expected without --interactive"),
    ({"init_checkpoint": "headless.bin"}, "headless.bin: has no question-answering head \\(qa_outputs\\)"),
    ({"init_checkpoint": "/nowhere.bin"}, "/nowhere.bin: No such file"),
    ({"max_seq_length": 11}, "--max_seq_length 11: expected more than --max_query_length 8"),
    ({"max_seq_length": 384}, "--max_seq_length 384: the model has positions for 64"),
    ({"do_lower_case": False}, "--do_lower_case false, but .* has do_lower_case true"),
]


@pytest.mark.parametrize(("changes", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_input(files, monkeypatch, changes, message):
    monkeypatch.chdir(files)
    with pytest.raises(UsageError, match=message):
        ask(files, **changes)


def test_an_answer_is_marked_where_it_was_found(vocab_file):
    """The same text occurs three times; the logits are highest at the third."""
    context = "The river. A river on the stone. The table, the (river) and a song. Walks."
    windows = WindowConfig(max_seq_length=12, doc_stride=2, max_query_length=4)
    questions = encode_questions([example_from_text("the song?", context)], windows, BertTokenizer(vocab_file))
    values = np.zeros((len(questions.sequences.tokens), 2), np.float32)
    places = [
        questions.sequences.offsets[number] + place
        for number, feature in enumerate(questions.features)
        for place, token in enumerate(feature.tokens)
        if token == "river" and feature.token_to_orig_map.get(place) == 10
    ]
    assert len(places) > 1  # it is in several windows
    values[places] = 1.25
    (found,) = answer(questions, Outputs(values, 0.0), ReaderConfig())
    start, end = found.chosen.span or (0, 0)
    assert (start, end) == (context.index("(river)") + 1, context.index("(river)") + 6)
    first, last = sentence_around(context, start, end)
    assert context[first:last] == "The table, the (river) and a song."


def test_an_answer_across_sentences_is_shown_with_both():
    text = "One is here. Two is there. Three is away. Four."
    first, last = sentence_around(text, text.index("there"), text.index("away"))
    assert text[first:last] == "Two is there. Three is away."


def test_white_space_around_an_answer_is_shown_as_blanks():
    context = "A song.\n\nThe river\nwalks \u00a0on the\tgreen stone . It ends."
    text = "river\nwalks \u00a0on"
    span = (context.index(text), context.index(text) + len(text))
    found = Answer("0", text, text, None, [Candidate(text, 1.0, 1, 1, span)])
    reply = inference.Reply("?", context, found, span)
    assert highlighted(reply, color=False) == "The [river walks on] the green stone ."
    assert render(reply, color=False).splitlines()[1].split() == ["100.0%", "river", "walks", "on"]


def test_published_answers_are_whole_words_where_letters_differ(files, capsys):
    for alignment, expected in (("offsets", "Bright"), ("published", "The\u00a0Bright\u00a0river.")):
        ask(files, context="The\u00a0Bright\u00a0river.\n", json=True, answer_alignment=alignment)
        found = json.loads(capsys.readouterr().out)
        assert (found["answer"], found["context"]) == (expected, "The\u00a0Bright\u00a0river.\n")


def test_colours(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    answer = Answer("0", "Seine", "Seine", None, [Candidate("Seine", 0.5, 1, 1)])
    reply = inference.Reply("?", "The Seine flows.", answer, (4, 9))
    assert render(reply, color=True).splitlines()[0] == "The \x1b[1;32mSeine\x1b[0m flows."
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert wants_color(Terminal())
    assert not wants_color(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not wants_color(Terminal())
