"""The client, the scores and the load command, against a gateway of the standard library."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("httpx")

from serve.fake_gateway import fake_gateway  # pyright: ignore[reportMissingImports]
from serve.real_triton import free_ports  # pyright: ignore[reportMissingImports]

from bert.client.ask import parse_question
from bert.client.score import Row, differing, render, score
from bert.errors import UsageError

ROOT = Path(__file__).parents[2]
SQUAD = {
    "version": "1.1",
    "data": [
        {
            "paragraphs": [
                {"context": f"{word} song.", "qas": [{"id": word, "question": "What?", "answers": [{"text": right}]}]}
                for word, right in (("bright", "bright"), ("green", "the green"), ("stone", "river"))
            ]
        }
    ],
}


@pytest.fixture
def gateway():
    with fake_gateway() as running:
        yield running


@pytest.fixture
def squad(tmp_path):
    path = tmp_path / "dev.json"
    path.write_text(json.dumps(SQUAD))
    return path


def run(name, *flags, expect=0, stdin=None):
    done = subprocess.run(
        [sys.executable, ROOT / "triton" / name, *map(str, flags)], input=stdin, capture_output=True, timeout=120
    )
    assert done.returncode == expect, done.stderr.decode()
    return (done.stdout if expect in (0, 1) else done.stderr).decode()


def test_one_question(gateway):
    flags = ("--url", gateway.url, "--question", "What?", "--context", "bright song")
    assert run("client.py", *flags) == " 75.0%  bright\n"
    assert json.loads(run("client.py", *flags, "--json"))["end"] == 6


def test_a_task(gateway):
    flags = ("--url", gateway.url, "--task", "mrpc")
    shown = run("client.py", *flags, "--text", "a b", "--text_pair", "c")
    assert shown == " 75.0%  mrpc a b c\n 25.0%  other\n"
    lines = ['{"text": "a"}', '{"text": "a", "question": "b"}', '{"text_pair": "a"}', '{"text": "c", "text_pair": "d"}']
    replies = run("client.py", *flags, stdin="\n".join(lines).encode()).splitlines()
    first, unknown, without, last = map(json.loads, replies)
    assert (first["label"], last["label"]) == ("mrpc a", "mrpc c d")
    assert unknown == {"error": "question: unknown field, expected text, text_pair"}
    assert without == {"error": "text: missing"}
    refused = run("client.py", "--url", gateway.url, "--task", "unknown", "--text", "a", expect=2)
    assert refused == "error: task 'unknown': expected one of mrpc\n"


def test_lines_of_stdin_keep_their_order(gateway):
    asked = [{"question": "What?", "context": f"wait {0.2 * (number == 0)} {number}"} for number in range(9)]
    lines = [json.dumps(each) for each in asked]
    lines[3:3] = [
        "{",
        "[]",
        '{"question": "?"}',
        '{"question": 1, "context": "a"}',
        '{"question": " ", "context": "a"}',
    ]
    lines.insert(5, "")
    replies = run("client.py", "--url", gateway.url, stdin="\n".join(lines).encode())
    got = [json.loads(line) for line in replies.splitlines()]
    assert [("error" in each) for each in got] == [False] * 3 + [True] * 5 + [False] * 6
    assert [each["error"] for each in got[4:8]] == [
        "expected an object, found list",
        "context: missing",
        "question: expected text",
        "not a question",
    ]


def test_a_bad_line_of_stdin_is_answered_in_its_place(gateway):
    got = run(
        "client.py", "--url", gateway.url, stdin=b'\xff\n\xef\xbb\xbf{"question": "a", "context": "b"}'
    ).splitlines()
    assert json.loads(got[0]) == {"error": "not UTF-8 (byte 0)"}
    assert json.loads(got[1])["answer"] == "b"


def test_a_busy_server_is_asked_again(gateway):
    line = json.dumps({"question": "a", "context": "busy once"}).encode()
    assert json.loads(run("client.py", "--url", gateway.url, stdin=line))["answer"] == "busy"


@pytest.mark.parametrize(
    ("context", "error"),
    [
        ("broken", "HTTP 200 without a reason; is this the gateway?"),
        ("fault", "internal error"),
        ("cut", "RemoteProtocolError: Server disconnected without sending a response."),
    ],
)
def test_replies_of_another_form(gateway, context, error):
    line = json.dumps({"question": "a", "context": context}).encode()
    assert json.loads(run("client.py", "--url", gateway.url, stdin=line)) == {"error": error}


def test_a_file_of_questions(gateway, squad, tmp_path):
    run(
        "client.py",
        "--url",
        gateway.url,
        "--predict_file",
        squad,
        "--output",
        tmp_path / "out.json",
        "--concurrency",
        2,
    )
    assert json.loads((tmp_path / "out.json").read_text()) == {word: word for word in ("bright", "green", "stone")}
    assert 1 <= gateway.most <= 2


@pytest.mark.parametrize("where", ["url", "grpc"])
def test_no_server(where):
    (port,) = free_ports(1)
    if where == "grpc":
        pytest.importorskip("tritonclient.grpc")
    address = f"{'http://' if where == 'url' else ''}127.0.0.1:{port}"
    error = run("client.py", f"--{where}", address, "--question", "a", "--context", "b", expect=2)
    hint = "no server answers there; start one with `bash triton/serve.sh`"
    assert error == f"error: --{where} {address}: {hint}\n"


@pytest.mark.parametrize(
    "flags",
    [
        ("--question", "a"),
        ("--predict_file", "a"),
        ("--text", "a"),
        ("--task", "a", "--question", "b", "--context", "c"),
        ("--url", "ftp://x", "--question", "a", "--context", "b"),
    ],
)
def test_flags_that_do_not_fit(flags):
    assert "expected" in run("client.py", *flags, expect=2)


def test_unknown_fields_of_a_question():
    with pytest.raises(UsageError, match="text: unknown field, expected question, context, n_best"):
        parse_question('{"question": "a", "context": "b", "text": "c"}')
    with pytest.raises(UsageError, match="n_best: expected a whole number"):
        parse_question('{"question": "a", "context": "b", "n_best": true}')


def test_scores_of_the_served_answers(gateway, squad):
    """By hand: "bright" is right, "green" is right without its article, "stone" is wrong."""
    served = run("metrics.py", "--url", gateway.url, "--predict_file", squad).splitlines()[1].split()
    assert served[:3] == ["served", "66.67", "66.67"]


def test_answers_that_differ_are_counted_and_shown(squad):
    answers = {"bright": "bright", "green": "green", "stone": "river"}
    rows = [score("served", str(squad), answers, 2.0), score("offline", str(squad), {**answers, "stone": "x"}, 1.0)]
    assert differing(rows) == ["stone"]
    table = [line.split() for line in render(rows).splitlines()]
    assert table[1] == ["served", "100.00", "100.00", "1", "1.5"]
    assert table[2] == ["offline", "66.67", "66.67", "3.0"]
    assert table[3] == ["stone:", "served", "'river',", "offline", "'x'"]


def test_scores_of_version_2(tmp_path):
    dataset = json.loads(json.dumps(SQUAD))
    dataset["data"][0]["paragraphs"][2]["qas"][0]["answers"] = []
    (tmp_path / "v2.json").write_text(json.dumps(dataset))
    row = score("served", str(tmp_path / "v2.json"), {"bright": "bright", "green": "x", "stone": ""}, 1.0)
    assert isinstance(row, Row) and row.exact == pytest.approx(200 / 3)


def test_load_counts_what_becomes_of_requests(gateway):
    report = run("load.py", "--url", gateway.url, "--requests", 40, "--concurrency", 4).splitlines()
    assert report[0].split() == ["answered", "40"]
    assert [line.split()[:2] for line in report[1:3]] == [["refused", "0"], ["failed", "0"]]
    assert gateway.most <= 4


@pytest.mark.slow
def test_hostile_load_on_a_server_that_refuses_with_a_reason(gateway):
    report = run("load.py", "--url", gateway.url, "--requests", 90, "--concurrency", 4, "--hostile")
    assert "malformed JSON: 422 not a question" in report
    assert "failed          0" in report


@pytest.mark.parametrize("context", ["fault", "broken", "cut"])
def test_load_fails_where_a_reply_has_no_reason(gateway, tmp_path, context):
    dataset = {"data": [{"paragraphs": [{"context": context, "qas": [{"id": "1", "question": "a"}]}]}]}
    (tmp_path / "dev.json").write_text(json.dumps(dataset))
    flags = ("--url", gateway.url, "--requests", 3, "--predict_file", tmp_path / "dev.json")
    assert "failed          3" in run("load.py", *flags, expect=1)
