"""Exported models on the real server, against the trained model."""

import json
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from serve.conftest import eager, open_saved, save_model, stream_of  # pyright: ignore[reportMissingImports]
from serve.real_triton import KEY, free_ports, is_installed, wait_for_port  # pyright: ignore[reportMissingImports]

from bert.config import parse_args
from bert.serve.repository import ExportConfig, export
from bert.serve.requests import PADDING
from bert.serve.server import ServerConfig, TritonServer
from bert.serve.text import build_front

pytestmark = [pytest.mark.slow, pytest.mark.server]
ROOT = Path(__file__).parents[2]
DELAY = 300_000  # microseconds in which requests are collected
TASKS = ("qa", "classify", "embed")


@pytest.fixture(scope="module")
def served(tmp_path_factory, write_vocabulary):
    """A server of all tasks: a client, and the trained models."""
    if not is_installed():
        pytest.skip("Triton's wheel is not installed")
    grpc = pytest.importorskip("tritonclient.grpc")
    folder = tmp_path_factory.mktemp("served")
    vocabulary, models = write_vocabulary(folder / "vocab.txt"), {}
    for task in TASKS:
        path = save_model(folder / f"{task}.bin", vocabulary, task, state={"labels": ["x", "y", "z"]})
        values = {"checkpoint": path, "task": task, "output": folder / "models", "queue_delay": DELAY}
        values |= {"max_seq_length": 64, "max_query_length": 16, "text_instances": 1}
        export(parse_args(ExportConfig, [f"--{name}={value}" for name, value in values.items()]), lambda line: None)
        models[task] = open_saved(path, task)
    (folder / "models" / "lost+found").mkdir()  # as in a mounted volume
    (folder / "models" / ".models-killed" / "bert" / "1").mkdir(parents=True)  # left behind by a killed export
    http, port, metrics = free_ports(3)
    config = ServerConfig(str(folder / "models"), http, port, metrics, cache_mb=1, allow_root=True)
    with TritonServer(config, KEY) as server:
        # Python in the server ignores PYTHONPATH, but looks into its folder first: test this bert, no installed one.
        (server._folder / "empty" / "bert").symlink_to(ROOT / "bert")
        server.start()
        wait_for_port(port, server._process, folder / "vocab.txt")
        with grpc.InferenceServerClient(f"127.0.0.1:{port}") as client:
            yield SimpleNamespace(client=client, grpc=grpc, models=models)


def statistics(served, model):
    headers = {"triton-grpc-protocol-admin-key": KEY}
    return served.client.get_inference_statistics(model, headers=headers).model_stats[0]


def infer(served, model, **tensors):
    """Send arrays, or texts, and return the outputs by name."""
    inputs = []
    for name, value in tensors.items():
        array = texts(value) if isinstance(value, (str, bytes)) else np.asarray(value)
        array = array if array.dtype == object else array.astype(np.int32)
        kind = "BYTES" if array.dtype == object else "INT32"
        inputs.append(served.grpc.InferInput(name, list(array.shape), kind))
        inputs[-1].set_data_from_numpy(array)
    result = served.client.infer(model, inputs, client_timeout=60)
    return {each.name: result.as_numpy(each.name) for each in result.get_response().outputs}


def texts(*values):
    """A tensor [b, 1] of texts."""
    return np.array([[value] for value in values], object)


def tensors_of(*arrays):
    return {f"input__{k}": array for k, array in enumerate(arrays)}


def engine_of(task):
    return {"qa": "bert", "classify": "bert_classifier_engine", "embed": "bert_embed_engine"}[task]


@pytest.mark.parametrize("task", TASKS)
def test_one_sequence(served, task):
    model = served.models[task]
    ids, types, offsets = stream_of([23], model.start.model_config.vocab_size)
    got = infer(served, engine_of(task), **tensors_of(ids[None], types[None]))
    expected = eager(model, ids, types, offsets)
    for name, values in zip(sorted(got), expected, strict=True):
        np.testing.assert_allclose(got[name], values.reshape(1, -1), atol=2e-5)


def test_a_padded_request_with_a_mask(served):
    """Rows padded on the right, on the left and with a hole, as a padding client sends them."""
    model = served.models["qa"]
    mask = np.array([[1, 1, 1, 1, 1, 0, 0], [0, 0, 0, 1, 1, 1, 1], [1, 0, 1, 0, 1, 1, 1]], np.int32)
    ids, types, offsets = stream_of(mask.sum(1).tolist(), model.start.model_config.vocab_size)
    tables = np.full((2, *mask.shape), 999_999, np.int32)  # padding may hold anything
    tables[0][mask == 1], tables[1][mask == 1] = ids, types
    got = infer(served, "bert", **tensors_of(*tables, mask))
    for name, values in zip(("output__0", "output__1"), eager(model, ids, types, offsets), strict=True):
        np.testing.assert_allclose(got[name][mask == 1], values, atol=2e-5)
        assert (got[name][mask == 0] == PADDING).all()


@pytest.mark.parametrize("task", TASKS)
def test_requests_of_several_lengths_share_a_batch(served, task):
    model, engine = served.models[task], engine_of(task)
    lengths = [5, 31, 2, 64, 8, 1, 12, 20]
    ids, types, offsets = stream_of(lengths, model.start.model_config.vocab_size)
    before = statistics(served, engine)
    found: dict[int, dict] = {}

    def send(number):
        part = slice(offsets[number], offsets[number + 1])
        found[number] = infer(served, engine, **tensors_of(ids[part][None], types[part][None]))

    threads = [threading.Thread(target=send, args=[number]) for number in range(len(lengths))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    end = time.monotonic() + 30  # the server counts a request a little after it has answered
    while (after := statistics(served, engine)).inference_count < before.inference_count + len(lengths):
        assert time.monotonic() < end
        time.sleep(0.02)
    assert after.execution_count - before.execution_count < len(lengths)
    expected = eager(model, ids, types, offsets)
    for number in range(len(lengths)):
        for name, values in zip(sorted(found[number]), expected, strict=True):
            rows = values[offsets[number] : offsets[number + 1]] if task == "qa" else values[number]
            np.testing.assert_allclose(found[number][name][0], rows, atol=2e-5)


def expected_reply(served, task, values):
    """The front in this process, with the trained model for an engine."""
    model = served.models[task]
    front = build_front(model.settings, model.start.tokenizer)
    prepared = front.prepare(values)
    outputs = [eager(model, one.ids, one.types, np.array([0, len(one.ids)])) for one in prepared.inputs]
    return front.reply(prepared, outputs if task == "qa" else [[each[0][0]] for each in outputs])


CONTEXT = "The bright river 😀\n\n walks under\tthe stone. " * 12  # several windows


def test_a_question(served):
    values = {"question": "What walks?", "context": CONTEXT}
    got = infer(served, "bert_qa", **values, n_best=[[3]])
    expected = expected_reply(served, "qa", {**values, "n_best": 3})
    assert got["answer"].tolist() == [[expected["answer"].encode()]]
    assert (got["start"].item(), got["end"].item()) == (expected["start"], expected["end"])
    assert CONTEXT[got["start"].item() : got["end"].item()].split() == expected["answer"].split()
    assert got["probability"].item() == pytest.approx(expected["probability"], rel=1e-3)
    nbest = json.loads(got["nbest"].item())
    assert [each["text"] for each in nbest] == [each["text"] for each in json.loads(expected["nbest"])]
    assert json.loads(infer(served, "bert_qa", **values)["nbest"].item()) == nbest[:1]  # without n_best


def test_several_questions_in_a_request(served):
    questions = ("What walks?", "the song", "river of stone")
    got = infer(served, "bert_qa", question=texts(*questions), context=texts(CONTEXT, "The song.", CONTEXT))
    for row, (question, context) in enumerate(zip(questions, (CONTEXT, "The song.", CONTEXT), strict=True)):
        expected = expected_reply(served, "qa", {"question": question, "context": context})
        assert got["answer"][row, 0].decode() == expected["answer"]
        assert (got["start"][row, 0], got["end"][row, 0]) == (expected["start"], expected["end"])


def test_a_label(served):
    for values in ({"text": "green song"}, {"text": "green song", "text_pair": "The table"}):
        got, expected = infer(served, "bert_classifier", **values), expected_reply(served, "classify", values)
        assert got["label"].item().decode() == expected["label"]
        assert got["probability"].item() == pytest.approx(expected["probability"], rel=1e-4)
        assert [each["label"] for each in json.loads(got["scores"].item())] == [
            each["label"] for each in json.loads(expected["scores"])
        ]


def test_a_vector(served):
    got = infer(served, "bert_embed", text="green song")["embedding"]
    np.testing.assert_allclose(got[0], expected_reply(served, "embed", {"text": "green song"})["embedding"], atol=1e-5)
    assert np.linalg.norm(got) == pytest.approx(1)


@pytest.mark.parametrize(
    ("model", "tensors", "message"),
    [
        ("bert", tensors_of([[1, 9999]]), "token id 9999: expected 0 to "),
        ("bert", tensors_of([[1] * 65]), "a sequence of 65 tokens: expected at most 64"),
        ("bert", tensors_of([[1, 2]], [[0, 2]]), "segment id 2: expected 0 to 1"),
        ("bert", tensors_of([[1, 2]], [[0, 1]], [[0, 0]]), "a sequence without a real token"),
        ("bert", tensors_of(np.zeros((1, 0))), "a sequence without a real token"),
        ("bert", tensors_of([[1, 2]], [[0]]), "ids, types and mask of shapes [1, 2], [1, 1], [1, 2]"),
        ("bert_qa", {"question": " ", "context": "a"}, "question ' ': expected some text"),
        ("bert_qa", {"question": "a", "context": b"a\xff"}, "a text that is not UTF-8 (byte 1)"),
        ("bert_qa", {"question": "a", "context": "b", "n_best": [[21]]}, "n_best 21: expected 1 to 20"),
        ("bert_classifier", {"text": "\x01"}, "text: no word of it is text to the model"),
        ("bert_embed", {"text": ""}, "text '': expected some text"),
    ],
)
def test_wrong_requests(served, model, tensors, message):
    """One line back, and the model still answers."""
    exception = pytest.importorskip("tritonclient.utils").InferenceServerException
    with pytest.raises(exception) as error:
        infer(served, model, **tensors)
    assert message in error.value.message() and "\n" not in error.value.message()
    assert "INVALID_ARGUMENT" in str(error.value.status())
    assert infer(served, "bert_embed", text="river")["embedding"].shape == (1, 32)


def test_a_request_without_sequences(served):
    exception = pytest.importorskip("tritonclient.utils").InferenceServerException
    with pytest.raises(exception):
        infer(served, "bert", **tensors_of(np.zeros((0, 5))))
    assert infer(served, "bert", **tensors_of([[1, 2]]))["output__0"].shape == (1, 2)


def test_wrong_requests_do_not_harm_their_batch(served):
    """A wrong and a right request at the same time: each gets its own answer."""
    exception = pytest.importorskip("tritonclient.utils").InferenceServerException
    errors: list[str] = []

    def wrong():
        try:
            infer(served, "bert", **tensors_of([[1, -1]]))
        except exception as error:
            errors.append(error.message())

    thread = threading.Thread(target=wrong)
    thread.start()
    assert infer(served, "bert", **tensors_of([[1, 2]]))["output__0"].shape == (1, 2)
    thread.join()
    assert len(errors) == 1 and "token id -1" in errors[0]
