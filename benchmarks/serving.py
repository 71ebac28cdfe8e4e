"""Compare served requests per CPU-second: engines without padding, and BERT as users of ONNX Runtime serve it.

    .venv/serving/bin/python benchmarks/serving.py              # after `bash triton/setup.sh test`
    .venv/serving/bin/pip install openvino                      # for that peer

One Triton server holds every contender with the same random weights, each in one process of one thread. Requests have
lengths as in SQuAD (mean about 165 of at most 384 tokens) and are sent by gRPC, --concurrency at a time. Contenders run
in turns; a turn's cost is the CPU time of the server and all its processes. The peers' graph is the one that ONNX
Runtime fuses best: transformers' model, exported by TorchScript and optimised by onnxruntime.transformers. The table
shows medians and the median of the ratios within a round.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.side_by_side import median_ratio
from bert.config import flag, run_command
from bert.errors import UsageError
from bert.ragged import offsets_of
from bert.serve.engine import load_engine
from bert.serve.model_config import ServingConfig, engine_config, to_text
from bert.serve.repository import ExportConfig, export
from bert.serve.server import ServerConfig, TritonServer
from bert.serve.tasks import ServedConfig
from bert.tokenization import SPECIAL_TOKENS

SIZES = {
    "mini": (6, 384, 12),
    "small": (4, 512, 8),
    "base": (12, 768, 12),
    "large": (24, 1024, 16),
}  # layers, width, heads
PEERS: dict[str, tuple[str, int | str]] = {  # what runs the peer's graph, and to which length it pads
    "ONNX Runtime, padded to 384": ("onnxruntime", 384),
    "ONNX Runtime, padded to the longest": ("onnxruntime", "longest"),
    "ONNX Runtime, exact length": ("onnxruntime", "exact"),
    "OpenVINO, exact length": ("openvino", "exact"),
}
VOCABULARY, MOST_TOKENS = 30522, 384
OWN = {"bert": "fp32", "bert_int8": "int8"}
QUESTION = "What was the ferry called?"


@dataclass
class ServingBenchmarkConfig:
    preset: str = flag("small", "Model size.", choices=tuple(SIZES))
    requests: int = flag(96, "Requests of each contender in a round.", minimum=1)
    concurrency: int = flag(16, "Requests at a time.", minimum=1)
    rounds: int = flag(5, "Timed rounds, after one that is not.", minimum=1)
    batch_tokens: int = flag(512, "Most tokens in a batch of the engine.", minimum=1)
    port: int = flag(18500, "First of three free ports.", minimum=1, maximum=65533)


def main(config: ServingBenchmarkConfig) -> None:
    with tempfile.TemporaryDirectory(prefix="bert-benchmark-") as folder:
        work = Path(folder)
        work.chmod(0o755)
        contenders = build_repository(config, work)
        lengths = squad_lengths(config.requests)
        server = ServerConfig(str(work / "repository"), config.port, config.port + 1, config.port + 2, allow_root=True)
        with TritonServer(server, "benchmark") as triton:
            triton.start()
            cost = CpuTime(triton)
            seconds = asyncio.run(measure(config, contenders, lengths, cost))
            cached = asyncio.run(measure_cache(config.port + 1, cost))
        alone = engine_alone(work / "repository" / "bert" / "1", lengths, config.rounds)
    print_table(seconds, len(lengths), alone, cached)


def squad_lengths(count: int) -> NDArray[np.int64]:
    """Draw lengths whose mean and spread are those of SQuAD's windows of at most 384 tokens."""
    draw = np.random.default_rng(0)
    return np.clip(draw.lognormal(np.log(155), 0.38, count), 30, MOST_TOKENS).astype(np.int64)


def build_peer(preset: str) -> Any:
    """Return transformers' model with random weights."""
    from transformers import BertConfig, BertForQuestionAnswering

    if preset not in SIZES:
        raise UsageError(f"--preset {preset}: expected one of {', '.join(SIZES)}")
    torch.manual_seed(0)
    layers, width, heads = SIZES[preset]
    shape = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
    )
    model = BertForQuestionAnswering(shape).eval()
    model.set_attn_implementation("eager")  # what ONNX Runtime can fuse
    return model


def save_peer(model: Any, folder: Path) -> None:
    """Write the model as a checkpoint, with a vocabulary of invented pieces."""
    model.save_pretrained(folder)
    pieces = [*SPECIAL_TOKENS, *(f"w{k}" for k in range(VOCABULARY - len(SPECIAL_TOKENS)))]
    (folder / "vocab.txt").write_text("\n".join(pieces), encoding="utf8")


def build_repository(config: ServingBenchmarkConfig, work: Path) -> dict[str, str]:
    """Write all contenders; return model name -> description."""
    model = build_peer(config.preset)
    checkpoint, repository = work / "checkpoint", work / "repository"
    save_peer(model, checkpoint)
    serving = ServingConfig(batch_tokens=config.batch_tokens)
    for name, precision in OWN.items():
        served = ServedConfig(str(checkpoint), "qa")
        export(ExportConfig(str(work / name), precision=precision, served=served, serving=serving), lambda _: None)
        if name == "bert":
            (work / name).rename(repository)
        else:
            (work / name / "bert").rename(repository / name)
        text = repository / name / "config.pbtxt"
        text.write_text(text.read_text().replace('name: "bert"', f'name: "{name}"', 1))
    names = {"bert": "this suite, fp32", "bert_int8": "this suite, int8"}
    export_peer(model, work / "peer.onnx")
    for number, (title, (runtime, padding)) in enumerate(PEERS.items()):
        if find_spec(runtime):
            names[f"peer{number}"] = title
            write_peer(repository / f"peer{number}", work, runtime, padding, serving)
    return names


def export_peer(model: Any, path: Path) -> None:
    """Export as ONNX Runtime's documentation does, and fuse."""
    from onnxruntime.transformers import optimizer

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: torch.Tensor, types: torch.Tensor, mask: torch.Tensor) -> Any:
            found = self.model(input_ids=ids, token_type_ids=types, attention_mask=mask)
            return found.start_logits, found.end_logits

    ids = torch.ones(2, 32, dtype=torch.int64)
    names, outputs = ["ids", "types", "mask"], ["start", "end"]
    axes = {name: {0: "B", 1: "L"} for name in [*names, *outputs]}
    torch.onnx.export(
        Logits(),
        (ids, ids, ids),
        str(path),
        input_names=names,
        output_names=outputs,
        dynamic_axes=axes,
        opset_version=17,
        dynamo=False,
    )
    shape = model.config
    fused = optimizer.optimize_model(
        str(path), model_type="bert", num_heads=shape.num_attention_heads, hidden_size=shape.hidden_size
    )
    fused.save_model_to_file(str(path.with_name("fused.onnx")))


def write_peer(folder: Path, work: Path, runtime: str, padding: int | str, serving: ServingConfig) -> None:
    """Write a peer's model folder; it batches up to 8 requests unless it runs each alone."""
    version = folder / "1"
    version.mkdir(parents=True)
    shutil.copy(Path(__file__).with_name("serving_peer.py"), version / "model.py")
    graph = "peer.onnx" if runtime == "openvino" else "fused.onnx"
    settings = {"runtime": runtime, "padding": padding, "model": str(work / graph)}
    (version / "peer.json").write_text(json.dumps(settings))
    config = engine_config(folder.name, {"outputs": 2}, serving, by_tokens=False)
    (folder / "config.pbtxt").write_text(to_text(config))


class CpuTime:
    """CPU seconds that the server and its processes have used."""

    def __init__(self, triton: TritonServer) -> None:
        import psutil

        self._root = psutil.Process(triton.pid)

    def __call__(self) -> float:
        processes = [self._root, *self._root.children(recursive=True)]
        return sum(sum(process.cpu_times()[:2]) for process in processes)


async def ask(client: Any, model: str, length: int) -> None:
    import tritonclient.grpc as grpc

    values = np.random.default_rng(length).integers(5, VOCABULARY, (1, length)).astype(np.int32)
    types = (np.arange(length)[None] > 12).astype(np.int32)
    inputs = []
    for number, array in enumerate((values, types)):
        inputs.append(grpc.InferInput(f"input__{number}", array.shape, "INT32"))
        inputs[-1].set_data_from_numpy(array)
    await client.infer(model, inputs)


async def measure(
    config: ServingBenchmarkConfig, contenders: dict[str, str], lengths: NDArray, cost: Callable[[], float]
) -> dict[str, list[float]]:
    """Return the CPU seconds of every contender in each round, by its description."""
    import tritonclient.grpc.aio as aio

    seconds: dict[str, list[float]] = {title: [] for title in contenders.values()}
    async with aio.InferenceServerClient(f"127.0.0.1:{config.port + 1}") as client:
        await wait_until_ready(client)
        gate = asyncio.Semaphore(config.concurrency)

        async def one(model: str, length: int) -> None:
            async with gate:
                await ask(client, model, length)

        for number in range(config.rounds + 1):
            for model, title in contenders.items():
                began = cost()
                await asyncio.gather(*(one(model, int(length)) for length in lengths))
                if number:
                    seconds[title].append(cost() - began)
    return seconds


async def wait_until_ready(client: Any) -> None:
    for _ in range(600):
        try:
            if await client.is_server_ready():
                return
        except Exception:  # what the client raises while nothing listens
            pass
        await asyncio.sleep(0.2)
    sys.exit("the server did not become ready")


async def measure_cache(port: int, cost: Callable[[], float], times: int = 100) -> tuple[float, float]:
    """Return the CPU seconds of an answer that is computed and of one from the cache."""
    import tritonclient.grpc as grpc
    import tritonclient.grpc.aio as aio

    async def answer(client: Any, context: str) -> None:
        inputs = []
        for name, text in (("question", QUESTION), ("context", context)):
            inputs.append(grpc.InferInput(name, [1, 1], "BYTES"))
            inputs[-1].set_data_from_numpy(np.array([[text.encode()]], object))
        await client.infer("bert_qa", inputs)

    words = " ".join(f"w{k}" for k in range(150))
    async with aio.InferenceServerClient(f"127.0.0.1:{port}") as client:
        began = cost()
        for number in range(times):
            await answer(client, f"{words} w{1000 + number}")
        middle = cost()
        for _ in range(times * 20):
            await answer(client, f"{words} w1000")
        return (middle - began) / times, (cost() - middle) / times / 20


def engine_alone(folder: Path, lengths: NDArray, rounds: int) -> float:
    """Return the CPU seconds for all requests in this process, without a server."""
    engine, draw = load_engine(folder), np.random.default_rng(0)
    offsets = offsets_of(lengths)
    ids = draw.integers(5, VOCABULARY, offsets[-1]).astype(np.int32)
    taken = []
    for _ in range(rounds + 1):
        began = time.process_time()
        engine(ids, np.zeros_like(ids), offsets)
        taken.append(time.process_time() - began)
    return statistics.median(taken[1:])


def print_table(seconds: dict[str, list[float]], requests: int, alone: float, cached: tuple[float, float]) -> None:
    own, int8 = (seconds[f"this suite, {name}"] for name in ("fp32", "int8"))
    print(f"{'':38}{'requests/CPU-s':>16}{'fp32 is':>10}{'int8 is':>10}")
    for title, taken in seconds.items():
        rate = requests / statistics.median(taken)
        print(f"{title:38}{rate:16.1f}{median_ratio(taken, own):9.2f}x{median_ratio(taken, int8):9.2f}x")
    print(f"{'this suite, fp32, without a server':38}{requests / alone:16.1f}{alone / statistics.median(own):9.2f}x")
    print(f"an answer: {cached[0] * 1e3:.1f} ms of CPU; cached {cached[1] * 1e3:.2f}, {cached[0] / cached[1]:.0f}x")


if __name__ == "__main__":
    run_command(main, ServingBenchmarkConfig)
