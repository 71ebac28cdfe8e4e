"""Tiny checkpoints of every task, opened for serving, and streams of random tokens."""

import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bert.model.bert import BertForQuestionAnswering, BertForSequenceClassification, BertModel
from bert.model.config import BertConfig
from bert.ragged import offsets_of
from bert.serve.tasks import Served, ServedConfig, open_checkpoint
from bert.tokenization import BertTokenizer

ROOT = Path(__file__).parents[2]
SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "hidden_dropout_prob": 0.1,  # as trained; serving must not drop anything
    "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 64,
}
LENGTHS = [[17], [9, 9, 9, 9], [3, 64], [5, 31, 2, 64, 8, 1, 12], [1], [1, 1, 1, 1]]
MODELS = {"qa": BertForQuestionAnswering, "classify": BertForSequenceClassification, "embed": BertModel}


def save_model(
    path: Path, vocab_file: Path, task: str, labels: int = 3, state: dict[str, Any] | None = None, **shape: Any
) -> Path:
    """Write a checkpoint with large random weights and biases; ``state`` is added to it."""
    tokenizer = BertTokenizer(vocab_file)
    config = BertConfig(vocab_size=tokenizer.vocab_size, **{**SHAPE, **shape})
    torch.manual_seed(0)
    model = MODELS[task](config, labels) if task == "classify" else MODELS[task](config)
    for name, parameter in model.named_parameters():
        with torch.no_grad():
            parameter.normal_(1.0 if name.endswith("LayerNorm.weight") else 0.0, 0.2)
    kept = {"model_config": config.to_dict(), "tokenizer": tokenizer.state_dict()}
    torch.save({"model": model.state_dict(), **kept, **(state or {})}, path)
    return path


def open_saved(path: Path, task: str, pooling: str = "mean") -> Served:
    return open_checkpoint(ServedConfig(str(path), task, pooling=pooling, max_seq_length=64, max_query_length=16))


@pytest.fixture
def write_model(tmp_path: Path, vocab_file: Path):
    """Return a function (task, labels, state, **shape) -> path of a checkpoint."""
    return lambda task, **changes: save_model(tmp_path / f"{task}.bin", vocab_file, task, **changes)


@pytest.fixture
def open_model(write_model):
    """Return a function (task, pooling, **shape) -> a tiny model, opened for serving."""
    return lambda task, pooling="mean", **changes: open_saved(write_model(task, **changes), task, pooling)


def stream_of(lengths: list[int], pieces: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random ids [T] and types [T], and the offsets [S + 1]."""
    draw, offsets = np.random.default_rng(seed), offsets_of(lengths)
    ids = draw.integers(0, pieces, offsets[-1]).astype(np.int32)
    return ids, draw.integers(0, 2, offsets[-1]).astype(np.int32), offsets


def eager(served: Served, ids: np.ndarray, types: np.ndarray, offsets: np.ndarray) -> list[np.ndarray]:
    """Call the model as it was trained, on padded tables with a mask: its outputs end to end.

    Nothing of ``bert.serve`` but the weights: the check is of the stream against the padded call.
    """
    model, rows = served.model, []
    for begin, end in zip(offsets[:-1], offsets[1:], strict=True):
        table = np.zeros((3, 1, end - begin + 3), np.int64)  # three columns of padding
        table[:, 0, : end - begin] = ids[begin:end], types[begin:end], np.ones(end - begin)
        with torch.inference_mode():
            layers, pooled = model.bert(*map(torch.from_numpy, table))
            hidden = layers[-1][0, : end - begin]
            if served.task == "qa":
                outputs = [model.qa_outputs(hidden)[:, 0], model.qa_outputs(hidden)[:, 1]]
            elif served.task == "classify":
                outputs = [model.classifier(pooled)]
            else:
                vector = hidden.mean(0) if model.pooling == "mean" else hidden[0]
                outputs = [(vector / vector.norm())[None]]
        rows.append([output.numpy() for output in outputs])
    return [np.concatenate(parts) for parts in zip(*rows, strict=True)]


@pytest.fixture(scope="module")
def start_triton(tmp_path_factory):
    """Return a function (repository) -> gRPC address of Triton, the package's, on free ports; skipped without it."""
    server = Path(pytest.importorskip("pytriton").__file__).parent / "tritonserver"
    folder, started = tmp_path_factory.mktemp("triton"), []
    backends = folder / "backends"
    shutil.copytree(server / "backends", backends)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    shutil.copy(server / "python_backend_stubs" / version / "triton_python_backend_stub", backends / "python")
    # Python in the server ignores PYTHONPATH, but begins with its folder: the bert that is tested, not an installed one.
    (folder / "bert").symlink_to(ROOT / "bert")
    libraries = f"{sysconfig.get_config_var('LIBDIR')}:{server.parents[1] / 'nvidia_pytriton.libs'}"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"

    def start(repository: Path) -> str:
        ports = _free_ports(3)
        flags = {"model-repository": repository, "backend-directory": backends, "cache-directory": server / "caches"}
        flags |= {"model-control-mode": "explicit", "load-model": "*", "allow-gpu-metrics": "false"}
        flags |= {"cache-config": "local,size=1048576", "exit-timeout-secs": 5}
        flags |= {"backend-config": f"python,shm-region-prefix-name=test{os.getpid()}_"}
        for name, port in zip(("http", "grpc", "metrics"), ports, strict=True):
            flags |= {f"{name}-address": "127.0.0.1", f"{name}-port": port}
        environment = os.environ | {"LD_LIBRARY_PATH": libraries, "PATH": path}
        log = folder / f"{len(started)}.log"
        with log.open("w") as file:
            command = [str(server / "bin" / "tritonserver"), *(f"--{name}={value}" for name, value in flags.items())]
            process = subprocess.Popen(command, env=environment, stdout=file, stderr=file, cwd=folder)
        started.append(process)
        _wait_for_port(ports[1], process, log)
        return f"127.0.0.1:{ports[1]}"

    yield start
    for process in started:
        process.terminate()
        process.wait(60)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _wait_for_port(port: int, process: subprocess.Popen, log: Path, seconds: float = 90) -> None:
    """Wait for gRPC, which Triton starts when the models are loaded."""
    end = time.monotonic() + seconds
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            assert process.poll() is None and time.monotonic() < end, log.read_text()[-3000:]
            time.sleep(0.1)
