"""NVIDIA's commands on a tiny model: export, inference here and on the real server, dumps, metrics, and their flags."""

import asyncio
import csv
import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
from serve.conftest import eager, open_saved, save_model  # pyright: ignore[reportMissingImports]
from serve.real_triton import KEY, is_installed, real_triton  # pyright: ignore[reportMissingImports]

from bert.config import parse_args
from bert.deployment import perf
from bert.deployment.dumps import read_dumps, write_dump
from bert.deployment.plugin import Parser, call_with, load_symbol
from bert.deployment.questions import MetricsCalculator, get_dataloader_fn
from bert.errors import UsageError
from bert.serve.repository import ExportConfig, export
from bert.squad.answers import RawResult
from bert.squad.examples import read_squad_examples
from bert.squad.features import convert_examples_to_features
from bert.squad.metrics import evaluate_v1, read_gold
from bert.squad.task import AnswerConfig, find_answers
from bert.tokenization import BertTokenizer

ROOT = Path(__file__).parents[2]
LENGTHS = {"max_seq_length": 48, "doc_stride": 16, "max_query_length": 8}


def flags(**values):
    return [word for name, value in values.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def run(name, *words, expect=0):
    done = subprocess.run(
        [sys.executable, ROOT / "triton" / f"{name}.py", *map(str, words)], capture_output=True, text=True, timeout=200
    )
    assert done.returncode == expect, done.stderr
    return done.stdout if expect == 0 else done.stderr


@pytest.fixture(scope="module")
def files(tmp_path_factory, write_vocabulary, make_text):
    """A checkpoint, its vocabulary, and seven questions, some with several windows."""
    folder = tmp_path_factory.mktemp("nvidia")
    save_model(folder / "qa.bin", write_vocabulary(folder / "vocab.txt"), "qa")
    contexts = [make_text(1, seed, sentences=2 + seed).replace("\n", " ") for seed in range(7)]
    asked = [
        {"id": str(k), "question": "What walks under the stone?", "answers": [{"text": context.split()[1]}]}
        for k, context in enumerate(contexts)
    ]
    paragraphs = [{"context": context, "qas": [each]} for context, each in zip(contexts, asked, strict=True)]
    (folder / "dev.json").write_text(json.dumps({"version": "1.1", "data": [{"paragraphs": paragraphs}]}))
    return folder


def data_flags(files, **more):
    return ["--dataloader", ROOT / "triton/dataloader.py", *question_flags(files), *flags(**more)]


def question_flags(files):
    return flags(predict_file=files / "dev.json", vocab_file=files / "vocab.txt", **LENGTHS)


def loader(files, **more):
    return get_dataloader_fn(
        predict_file=str(files / "dev.json"), vocab_file=str(files / "vocab.txt"), **LENGTHS, **more
    )


@pytest.fixture(scope="module")
def logits(files):
    """The trained model's logits, called one window at a time: {unique id: (start, end)}."""
    model, found = open_saved(files / "qa.bin", "qa"), {}
    for ids, x, _ in loader(files)():
        for number, each in enumerate(ids):
            length = x["input__2"][number].sum()
            one = [x[name][number, :length] for name in ("input__0", "input__1")]
            found[each] = eager(model, *one, np.array([0, length]))
    return found


def check_dumps(folder, logits):
    seen = set()
    for batch in read_dumps(folder):
        for number, each in enumerate(batch["ids"]["ids"].tolist()):
            for name, expected in zip(("output__0", "output__1"), logits[each], strict=True):
                got = batch["outputs"][name][number]
                assert got.shape == (48,)
                np.testing.assert_allclose(got[: len(expected)], expected, atol=2e-5)
                assert (got[len(expected) :] < -1000).all()
            seen.add(each)
    assert seen == set(logits)


@pytest.fixture(scope="module")
def offline_scores(files, logits):
    """The same file scored without anything of bert.serve but its inputs."""
    examples = read_squad_examples(files / "dev.json", False, False)
    tokenizer = BertTokenizer(files / "vocab.txt")
    features = convert_examples_to_features(examples, tokenizer, **LENGTHS, is_training=False)
    results = [RawResult(each.unique_id, *logits[each.unique_id]) for each in features]
    answers = find_answers(examples, features, results, True, AnswerConfig())
    return evaluate_v1(read_gold(files / "dev.json"), {each.qas_id: each.text for each in answers})


def check_metrics(files, dumps, offline_scores):
    words = ["--metrics", ROOT / "triton/metrics.py", "--csv", dumps / "m.csv", "--dump-dir", dumps]
    run("calculate_metrics", *words, *question_flags(files), "--output-dir", dumps)
    (row,) = csv.DictReader((dumps / "m.csv").open())
    assert list(row) == ["_total_", "f1", "exact_match"]
    assert float(row["f1"]) == pytest.approx(offline_scores["f1"])
    assert float(row["exact_match"]) == pytest.approx(offline_scores["exact_match"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ts-trace", "ts-script", "onnx", "pyt"])
def test_export_then_inference_here(files, logits, offline_scores, tmp_path, kind):
    """Exported with a batch of 4, run with batches of 3 and a last one that is not filled up."""
    model, checkpoint = tmp_path / "model", ["--checkpoint", files / "qa.bin"]
    if kind == "pyt":
        model, more = ROOT / "triton/model.py", checkpoint
    else:
        if kind == "onnx":
            pytest.importorskip("onnxruntime")
        words = flags(input_path=ROOT / "triton/model.py", input_type="pyt", output_path=model, output_type=kind)
        run("export_model", *words, *checkpoint, *data_flags(files, batch_size=4))
        more = []
    words = [*flags(input_path=model, input_type=kind, output_dir=tmp_path / "dumps"), *more]
    run("run_inference_on_fw", *words, *data_flags(files, batch_size=3, pad_to_batch_size="false"))
    check_dumps(tmp_path / "dumps", logits)
    check_metrics(files, tmp_path / "dumps", offline_scores)


def test_a_fixed_batch(files, tmp_path):
    onnx = pytest.importorskip("onnx")
    words = flags(input_path=ROOT / "triton/model.py", input_type="pyt", output_path=tmp_path / "m", output_type="onnx")
    words += ["--checkpoint", files / "qa.bin", "--fixed-batch-dim", "--ignore-unknown-parameters", "--unheard", "of"]
    run("export_model", *words, *data_flags(files, batch_size=4))
    sizes = {each.name: each.type.tensor_type.shape.dim[0].dim_value for each in onnx.load(tmp_path / "m").graph.input}
    assert sizes == {"input__0": 4, "input__1": 4, "input__2": 4}


def test_a_signature_beside_a_torchscript_file(files, tmp_path):
    yaml = pytest.importorskip("yaml")
    words = flags(input_path=ROOT / "triton/model.py", input_type="pyt", output_path=tmp_path / "m.pt")
    run("export_model", *words, "--output-type", "ts-trace", "--checkpoint", files / "qa.bin")
    signature = yaml.safe_load((tmp_path / "m.pt.yaml").read_text())
    assert signature["inputs"]["input__2"] == {"name": "input__2", "dtype": "int32", "shape": [-1, 16]}
    assert list(signature["outputs"]) == ["output__0", "output__1"]


USERS_MODEL = """
import torch

class Twice(torch.nn.Module):
    def forward(self, x):
        return 2 * x

def get_model(scale: int = 1):
    return Twice(), {"inputs": ["x"], "outputs": ["y"]}
"""
USERS_LOADER = """
import numpy as np

def get_dataloader_fn(batches: int, start: float = 0.5):
    return lambda: (([k], {"x": np.full((1, 2), start + k, np.float32)}, {}) for k in range(batches))
"""


def test_a_users_own_model_and_data(tmp_path):
    """Their parameters become flags; nothing is known of BERT."""
    (tmp_path / "model.py").write_text(USERS_MODEL)
    (tmp_path / "data.py").write_text(USERS_LOADER)
    words = flags(input_path=tmp_path / "model.py", input_type="pyt", dataloader=tmp_path / "data.py", batches=2)
    run(
        "run_inference_on_fw",
        *words,
        "--output-dir",
        tmp_path / "out",
        "--start",
        "3",
        "--dump-inputs",
        "--dump-labels",
    )
    batches = list(read_dumps(tmp_path / "out"))
    assert [batch["outputs"]["y"].tolist() for batch in batches] == [[[6, 6]], [[8, 8]]]
    assert [batch["inputs"]["x"].tolist() for batch in batches] == [[[3, 3]], [[4, 4]]]
    assert "labels" not in batches[0]  # there are none


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("export_model", ["--input-type", "tf-keras"], "--input-type tf-keras: not supported, expected pyt"),
        ("export_model", ["--output-type", "tf-savedmodel"], "tf-savedmodel: not supported, expected ts-trace or ts-s"),
        ("export_model", ["--input-path", "/nowhere.py"], "--input-path /nowhere.py: no such file"),
        ("export_model", ["--input-path", Path(__file__).with_name("fake_gateway.py")], "it defines no get_model"),
        ("export_model", [], "the following arguments are required: --checkpoint"),
        ("export_model", ["--checkpoint", "a", "--unheard", "of"], "unrecognized arguments: --unheard of"),
    ],
)
def test_wrong_flags(name, words, message, tmp_path):
    given = {"--input-path": ROOT / "triton/model.py", "--input-type": "pyt", "--output-type": "onnx"}
    given |= {"--output-path": tmp_path / "m"} | dict(zip(words[::2], words[1::2], strict=True))
    error = run(name, *(word for pair in given.items() for word in pair), expect=2)
    assert message in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_help_shows_the_flags_of_the_named_files():
    words = ["--input-path", ROOT / "triton/model.py", "--dataloader", ROOT / "triton/dataloader.py", "--help"]
    words += flags(input_type="pyt", output_path="m", output_type="onnx")
    text = run("export_model", *words)
    assert "--max-query-length" in text and "--fixed-batch-dim" in text


def test_the_last_batch_is_filled_up(files):
    """36 windows: seven batches of 5 and one more."""
    batches = list(loader(files, batch_size=5)())
    ids, x, y = batches[-1]
    assert len(batches) == 8 and len({each for batch in batches for each in batch[0]}) == 36
    assert len(set(ids)) == 1 and x["input__0"].shape == (5, 48) and x["input__0"].dtype == np.int32
    assert not y["output__1"].any()
    assert len(list(loader(files, batch_size=5, pad_to_batch_size=False)())[-1][0]) == 1
    assert len(list(loader(files, batch_size=6)())) == 6  # no batch of copies alone


def test_an_evaluation_script_of_ones_own(files, logits, tmp_path):
    (tmp_path / "evaluate.py").write_text('print(\'{"exact_match": 1.5, "f1": 2.5}\')')
    metrics = MetricsCalculator(
        str(tmp_path / "evaluate.py"),
        str(files / "dev.json"),
        str(tmp_path),
        vocab_file=str(files / "vocab.txt"),
        **LENGTHS,
    )
    for each, (start, end) in logits.items():
        metrics.update([each], {"output__0": start[None], "output__1": end[None]})
    assert metrics.metrics == {"f1": 2.5, "exact_match": 1.5}
    assert len(json.loads((tmp_path / "predictions.json").read_text())) == 7


def test_dumps_return_what_was_written(tmp_path):
    arrays = {"a": np.arange(6, dtype=np.int32).reshape(2, 3), "b": np.array([0.1, -1e-30], np.float32)}
    write_dump(tmp_path, "outputs", 12, arrays)
    write_dump(tmp_path, "ids", 12, {"ids": np.array([5, 6])})
    assert {each.name for each in tmp_path.iterdir()} == {"outputs-000000000012.json", "ids-000000000012.json"}
    (batch,) = read_dumps(tmp_path)
    for name, array in arrays.items():
        np.testing.assert_array_equal(batch["outputs"][name], array)
        assert batch["outputs"][name].dtype == array.dtype
    write_dump(tmp_path, "ids", 12, {"ids": np.array([5])})
    with pytest.raises(UsageError, match="batch 000000000012 have different numbers of samples"):
        list(read_dumps(tmp_path))
    (tmp_path / "ids-000000000012.json").write_text('{"data": [{"ids": {"content": [1]}}]}')
    with pytest.raises(UsageError, match="not a dump"):
        list(read_dumps(tmp_path))


def test_flags_of_a_signature():
    def make(size: int, rate: float = 0.5, name: str = "", quick: bool = True, other=7, maybe: int | None = None):
        return size, rate, name, quick, other, maybe

    parser = Parser("")
    parser.add_argument("--name", default="mine")  # already there: stays as it is
    from bert.deployment.plugin import add_signature_flags

    add_signature_flags(parser, make)
    args = parser.last(["--size", "3", "--quick", "false", "--other", "8", "--maybe", "1"])
    assert call_with(make, args) == (3, 0.5, "mine", False, 8, 1)


def test_a_plugin_may_import_its_neighbours(tmp_path):
    (tmp_path / "beside_it.py").write_text("value = 3")
    (tmp_path / "plugin.py").write_text("from beside_it import value")
    before = list(sys.path)
    assert load_symbol(str(tmp_path / "plugin.py"), "value", "--x") == 3
    assert sys.path == before


def loads(**changes):
    values = {"request_rates": None, "batching_mode": "static", "batch_sizes": [1, 8], "concurrency_steps": 32}
    values |= {"number_of_triton_instances": 1, "number_of_model_instances": 1, "request_distribution": "poisson"}
    return perf.loads_of(Namespace(**{**values, **changes}))


def test_loads_of_a_measurement():
    """NVIDIA's rules: dynamic batching with batches of 8 and 2 instances is up to 2 * 8 * 2 requests at once."""
    assert loads() == [(1, "concurrency", 1), (8, "concurrency", 1)]
    dynamic = loads(batching_mode="dynamic", number_of_model_instances=2, concurrency_steps=4)
    assert dynamic == [(1, "concurrency", each) for each in (8, 16, 24, 32)]
    most = loads(batching_mode="dynamic", batch_sizes=[256], concurrency_steps=2)
    assert most == [(2, "concurrency", 128), (2, "concurrency", 256)]
    assert loads(request_rates=[5.0, 10.0]) == [(1, "poisson", 5), (1, "poisson", 10)]


def test_the_figure(tmp_path):
    pytest.importorskip("matplotlib")
    shared = {"Batch": 1, "Inferences/Second": 90.5, "p50 latency": 1000, "p99 latency": 2000}
    perf.save_rows([{**shared, "Load": "concurrency", "Concurrency": 1}], tmp_path / "a.csv")
    perf.save_rows([{**shared, "Load": "poisson", "Request Rate": 5}], tmp_path / "b.csv")
    run("plot_performance", "--results", tmp_path / "a.csv", tmp_path / "b.csv", "--output", tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    assert "not a CSV" in run("plot_performance", "--results", __file__, "--output", tmp_path / "p.png", expect=2)


def test_inputs_for_perf_analyzer(files, tmp_path):
    found = {}
    for form in ("padded", "ragged", "text"):
        words = ["--predict-file", files / "dev.json"] if form == "text" else data_flags(files)
        run("prepare_input_data", "--input-data-dir", tmp_path / form, "--form", form, *words)
        found[form] = json.loads((tmp_path / form / "data.json").read_text())["data"]
    for padded, ragged in zip(found["padded"], found["ragged"], strict=True):
        size = sum(padded["input__2"])
        assert len(padded["input__0"]) == 48 and ragged["input__0"]["shape"] == [size]
        assert ragged["input__0"]["content"] == padded["input__0"][:size]
    assert found["text"][0]["n_best"] == [1] and found["text"][7]["n_best"] == [2]
    assert len(found["text"]) == 7 * 20


@pytest.fixture(scope="module")
def server(files):
    """The exported model on a real server."""
    if not is_installed():
        pytest.skip("Triton's wheel is not installed")
    pytest.importorskip("tritonclient.grpc")
    values = {"checkpoint": files / "qa.bin", "task": "qa", "output": files / "models", **LENGTHS}
    export(parse_args(ExportConfig, [f"--{name}={value}" for name, value in values.items()]), lambda line: None)
    (files / "server").mkdir()
    (files / "server" / "bert").symlink_to(ROOT / "bert")  # Python in the server looks into its folder first
    with real_triton(files / "models", files / "server") as running:
        yield running


@pytest.mark.slow
@pytest.mark.server
@pytest.mark.parametrize("more", [[], ["--synchronous"], ["--max-unresponded-requests", "2"]])
def test_inference_on_the_server(server, files, logits, offline_scores, tmp_path, more):
    words = flags(server_url=server.grpc, model_name="bert", model_version=1, output_dir=tmp_path)
    run("run_inference_on_triton", *words, "--dump-labels", "--dump-inputs", *more, *data_flags(files, batch_size=3))
    check_dumps(tmp_path, logits)
    check_metrics(files, tmp_path, offline_scores)


@pytest.mark.slow
@pytest.mark.server
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_name": "none"}, "it has no model none version 1 that is ready"),
        ({"model_version": 9}, "it has no model bert version 9 that is ready"),
        ({"model_name": "bert_qa"}, "takes question, context, n_best, attempt, not input__0, input__1, input__2"),
    ],
)
def test_a_model_that_is_not_there(server, files, tmp_path, changes, message):
    words = {"server_url": server.grpc, "model_name": "bert", "model_version": 1, "output_dir": tmp_path, **changes}
    error = run("run_inference_on_triton", *flags(**words), *data_flags(files), expect=2)
    assert message in error.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.server
def test_served_and_offline_answers_are_equal(server, files):
    words = ["--grpc", server.grpc, "--predict_file", files / "dev.json", "--checkpoint", files / "qa.bin"]
    rows = run("metrics", *words, *flags(**LENGTHS), "--expect_equal").splitlines()
    assert rows[1].split()[1:4] == [*rows[2].split()[1:3], "0"]


@pytest.mark.slow
@pytest.mark.server
def test_a_client_asks_triton_itself(server, files, tmp_path):
    context = "The bright river walks under the stone."
    words = ["--grpc", server.grpc, "--question", "What walks?", "--context", context, "--json"]
    reply = json.loads(run("client", *words))
    assert context[reply["start"] : reply["end"]] == reply["answer"] and len(reply["nbest"]) == 3
    assert run("client", *words[:2], "--question", " ", "--context", context, expect=2).startswith(
        "error: question ' '"
    )


@pytest.mark.slow
@pytest.mark.server
def test_a_measurement(server, files, tmp_path, monkeypatch):
    if not (perf.TOOL / "perf_analyzer").is_file():
        pytest.skip("perf_analyzer is not installed")
    monkeypatch.setenv("BERT_SERVE_ADMIN_KEY", KEY)
    run("prepare_input_data", "--input-data-dir", tmp_path, "--form", "ragged", *data_flags(files))
    words = flags(server_url=f"grpc://{server.grpc}", model_name="bert", evaluation_mode="online", batch_sizes=1)
    words += flags(input_data=tmp_path / "data.json", result_path=tmp_path / "r.csv", measurement_request_count=5)
    run("run_performance_on_triton", *words, "--request-rates", "50", "--request-distribution", "poisson")
    (row,) = csv.DictReader((tmp_path / "r.csv").open())
    assert row["Batch"] == "1" and row["Request Rate"] == "50"
    assert float(row["Inferences/Second"]) > 0 and float(row["avg latency"]) > 0


def test_random_inputs():
    rows = perf.random_data(["input__0", "input__1", "input__2"], ["input__0:9", "input__1:9", "input__2:9"])["data"]
    assert all(len(row["input__1"]) == 9 and max(row["input__0"]) < perf.RANDOM_IDS for row in rows)
    assert all(row["input__2"] == [1] * 9 for row in rows)
    assert set(perf.random_data(["question", "context"], [])["data"][0]) == {"question", "context"}
    assert asyncio.iscoroutinefunction(load_symbol(str(ROOT / "triton/run_inference_on_triton.py"), "run", "--x"))
