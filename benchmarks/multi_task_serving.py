"""Compare a server of many tasks on one base with a model of its own for each: requests per CPU-second, and memory.

    .venv/serving/bin/python benchmarks/multi_task_serving.py           # after `bash triton/setup.sh test`

One Triton server holds all contenders: the engine of --tasks tasks in one process; as many fine-tuned models, each
exported to ONNX, and as many engines of one task, each in a process of its own. Every process has one thread, and all
encoders have the same weights, random unless --checkpoint names a base. Requests have lengths as in GLUE (mean about 40
of at most 128 tokens), each for a task that is drawn, and are sent by gRPC, --concurrency at a time. Contenders run in
turns; a turn's cost is the CPU time of the server and all its processes. The table shows medians, the median of the
ratios within a round, and the memory of the contenders' processes after the last round: resident, and the proportional
share (PSS), which counts what processes have in common only once.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.serving import SIZES, CpuTime
from benchmarks.side_by_side import median_ratio
from bert.checkpoint.adapter_files import identify, save_adapter
from bert.checkpoint.open_model import ModelFiles, load_start
from bert.config import flag, run_command
from bert.model.adapters.config import KEYS, build_adapter_config
from bert.model.bert import BertForSequenceClassification
from bert.model.config import BertConfig
from bert.serve.model_config import ServingConfig
from bert.serve.multitask import ADAPTERS
from bert.serve.repository import ExportConfig, export
from bert.serve.server import ServerConfig, TritonServer
from bert.serve.tasks import ServedConfig
from bert.tokenization import SPECIAL_TOKENS, BertTokenizer

MOST_TOKENS, VOCABULARY = 128, 30522
ENGINE = "bert_multitask_engine"
TITLES = {"all": "one engine", "onnx": "ONNX models, one each", "torch": "the same engine, one each"}


@dataclass
class MultiTaskServingConfig:
    checkpoint: str | None = flag(None, "Base, in any format that convert_checkpoint.py reads; else random weights.")
    preset: str = flag("small", "Model size without --checkpoint.", choices=tuple(SIZES))
    adapter: str = flag("pals", "Adapter of the tasks, with random weights.", choices=tuple(KEYS))
    tasks: int = flag(8, "Number of tasks.", minimum=1)
    requests: int = flag(192, "Requests of each contender in a round.", minimum=1)
    concurrency: int = flag(32, "Requests at a time.", minimum=1)
    rounds: int = flag(5, "Timed rounds, after one that is not.", minimum=1)
    batch_tokens: int = flag(512, "Most tokens in a batch of an engine.", minimum=1)
    port: int = flag(18500, "First of three free ports.", minimum=1, maximum=65533)


def main(config: MultiTaskServingConfig) -> None:
    with tempfile.TemporaryDirectory(prefix="bert-benchmark-") as folder:
        work = Path(folder)
        work.chmod(0o755)
        build_repository(config, work)
        server = ServerConfig(str(work / "repository"), config.port, config.port + 1, config.port + 2, allow_root=True)
        with TritonServer(server, "benchmark") as triton:
            triton.start()
            seconds = asyncio.run(measure(config, triton))
            print_table(config, seconds, {kind: memory(triton, kind) for kind in TITLES})


def build_repository(config: MultiTaskServingConfig, work: Path) -> None:
    """Write all contenders: models all0, onnx0, onnx1, ..., torch0, torch1, ..."""
    base, repository = config.checkpoint or str(write_base(config.preset, work / "base.bin")), work / "repository"
    repository.mkdir()
    names = write_tasks(config, base, work)
    write_engine(work, base, "multitask", "all0", config, str(work / "adapters"))
    for number, name in enumerate(names):
        write_engine(work, str(work / f"{name}.bin"), "classify", f"onnx{number}", config)
        (work / f"{name}.bin").unlink()
        shutil.copytree(repository / "all0", repository / f"torch{number}", copy_function=os.link)
        rename(repository / f"torch{number}", "all0")
        for file in (repository / f"torch{number}" / ADAPTERS).iterdir():
            if file.stem != name:
                file.unlink()


def write_base(preset: str, path: Path) -> Path:
    """Write a checkpoint of random weights with a vocabulary of invented pieces."""
    layers, width, heads = SIZES[preset]
    path.with_suffix(".txt").write_text(
        "\n".join([*SPECIAL_TOKENS, *(f"w{k}" for k in range(VOCABULARY - len(SPECIAL_TOKENS)))]), encoding="utf8"
    )
    torch.manual_seed(0)
    shape = BertConfig(VOCABULARY, width, layers, heads, 4 * width)
    model = BertForSequenceClassification(shape)
    tokenizer = BertTokenizer(path.with_suffix(".txt")).state_dict()
    torch.save({"model": model.bert.state_dict(), "model_config": shape.to_dict(), "tokenizer": tokenizer}, path)
    return path


def write_tasks(config: MultiTaskServingConfig, base: str, work: Path) -> list[str]:
    """Write, for each task, an adapter file and a checkpoint of a whole model; return their names."""
    start = load_start(ModelFiles(), base, MOST_TOKENS)
    state: Any = start.state
    identity, names = identify(state["model"], start.model_config, "base"), [f"task{k}" for k in range(config.tasks)]
    (work / "adapters").mkdir()
    for name in names:
        model = BertForSequenceClassification(start.model_config)
        start.load_into(model, ("classifier.*",))
        torch.save({"model": model.state_dict(), **start.constants()}, work / f"{name}.bin")
        shape = BertConfig.from_dict(start.model_config.to_dict())
        vars(shape).update(build_adapter_config(config.adapter, shape.hidden_size).keys())
        adapted = BertForSequenceClassification(shape)
        own = ("bert.adapters.", "classifier.")
        tensors = {n: t for n, t in adapted.state_dict().items() if n.startswith(own) or "LayerNorm" in n}
        facts = {"tokenizer": start.tokenizer.state_dict(), "task": name, "labels": ["no", "yes"]}
        save_adapter(work / "adapters" / f"{name}.safetensors", tensors, identity, shape, facts)
    return names


def write_engine(
    work: Path, checkpoint: str, task: str, name: str, config: MultiTaskServingConfig, adapters: str | None = None
) -> None:
    """Export a checkpoint and keep its engine under another name."""
    served = ServedConfig(checkpoint, task, adapters=adapters, max_seq_length=MOST_TOKENS)
    serving = ServingConfig(batch_tokens=config.batch_tokens)
    export(ExportConfig(str(work / "export"), served=served, serving=serving), lambda line: None)
    engine = ENGINE if task == "multitask" else "bert_classifier_engine"
    (work / "export" / engine).rename(work / "repository" / name)
    shutil.rmtree(work / "export")
    rename(work / "repository" / name, engine)


def rename(folder: Path, name: str) -> None:
    text = (folder / "config.pbtxt").read_text().replace(f'name: "{name}"', f'name: "{folder.name}"', 1)
    (folder / "config.pbtxt").unlink()  # it may be a link to another model's
    (folder / "config.pbtxt").write_text(text)


def glue_lengths(count: int) -> NDArray[np.int64]:
    """Draw lengths whose mean and spread are those of GLUE's tasks, single sentences and pairs."""
    draw = np.random.default_rng(0)
    return np.clip(draw.lognormal(np.log(34), 0.6, count), 6, MOST_TOKENS).astype(np.int64)


async def measure(config: MultiTaskServingConfig, triton: TritonServer) -> dict[str, list[float]]:
    """Return the CPU seconds of every contender in each round."""
    import tritonclient.grpc.aio as aio

    seconds: dict[str, list[float]] = {kind: [] for kind in TITLES}
    lengths, draw = glue_lengths(config.requests), np.random.default_rng(1)
    tasks = draw.integers(0, config.tasks, config.requests)
    async with aio.InferenceServerClient(f"127.0.0.1:{config.port + 1}") as client:
        while not await is_ready(client):
            triton.revive()  # ends with an error if it has died
            await asyncio.sleep(1)
        gate, cost = asyncio.Semaphore(config.concurrency), CpuTime(triton)

        async def one(kind: str, task: int, length: int) -> None:
            async with gate:
                await ask(client, kind, task, length)

        for number in range(config.rounds + 1):
            for kind, taken in seconds.items():
                began = cost()
                pairs = zip(tasks.tolist(), lengths.tolist(), strict=True)
                await asyncio.gather(*(one(kind, task, length) for task, length in pairs))
                if number:
                    taken.append(cost() - began)
    return seconds


async def is_ready(client: Any) -> bool:
    try:
        return bool(await client.is_server_ready())
    except Exception:  # what the client raises while nothing listens: models load one after the other
        return False


async def ask(client: Any, kind: str, task: int, length: int) -> None:
    import tritonclient.grpc as grpc

    ids = np.random.default_rng(length).integers(5, VOCABULARY, (1, length)).astype(np.int32)
    arrays: dict[str, NDArray] = {"input__0": ids, "input__1": (np.arange(length)[None] > 12).astype(np.int32)}
    if kind != "onnx":
        arrays["task"] = np.array([[f"task{task}".encode()]], object)
    inputs = []
    for name, array in arrays.items():
        inputs.append(grpc.InferInput(name, list(array.shape), "BYTES" if array.dtype == object else "INT32"))
        inputs[-1].set_data_from_numpy(array)
    await client.infer("all0" if kind == "all" else f"{kind}{task}", inputs)


def memory(triton: TritonServer, kind: str) -> tuple[float, float]:
    """Return the megabytes of a contender's processes: resident, and their proportional share."""
    import psutil

    processes = psutil.Process(triton.pid).children(recursive=True)
    own = [each for each in processes if f"/repository/{kind}" in " ".join(each.cmdline())]
    found = [each.memory_full_info() for each in own]
    return sum(each.rss for each in found) / 2**20, sum(each.pss for each in found) / 2**20


def print_table(
    config: MultiTaskServingConfig, seconds: dict[str, list[float]], megabytes: dict[str, tuple[float, float]]
) -> None:
    heads = f"{'requests/CPU-s':>16}{'one is':>9}{'RSS MB':>9}{'PSS MB':>9}{'PSS':>9}"
    print(f"{f'{config.tasks} tasks, {config.adapter}':30}{heads}")
    for kind, title in TITLES.items():
        rate, ratio = config.requests / statistics.median(seconds[kind]), median_ratio(seconds[kind], seconds["all"])
        rss, pss = megabytes[kind]
        share = pss / megabytes["all"][1]
        print(f"{title:30}{rate:16.1f}{ratio:8.2f}x{rss:9.0f}{pss:9.0f}{share:8.2f}x")


if __name__ == "__main__":
    run_command(main, MultiTaskServingConfig)
