"""Compare exported engines with transformers on question answering, without a server, on a CPU or a GPU.

    python benchmarks/engine.py --preset large --formats aoti,torch_export --precision fp16 --batch_tokens 16384

All have the same random weights and the same windows, with lengths as in SQuAD, all at hand at once. transformers runs
in the same number format with its SDPA attention, on batches padded to 384 tokens, or sorted by length and padded to
the longest. Contenders run in turns; the table shows medians and the median of the ratios within a round.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.serving import MOST_TOKENS, build_peer, save_peer, squad_lengths
from benchmarks.side_by_side import describe_device, median_ratio, take_turns
from bert.config import flag, run_command
from bert.ragged import offsets_of
from bert.serve.engine import load_engine
from bert.serve.export import DTYPES, write_model
from bert.serve.gate import check_parity
from bert.serve.tasks import ServedConfig, open_checkpoint


@dataclass
class EngineBenchmarkConfig:
    preset: str = flag("small", "Model size: mini, small, base or large.")
    formats: str = flag("onnx,torch_export,aoti", "Formats to compare, separated by commas.")
    precision: str = flag("fp32", "Number format.", choices=("fp32", "fp16", "bf16"))
    windows: int = flag(64, "Windows in a turn.", minimum=1)
    batch_size: int = flag(8, "Windows in a batch of transformers.", minimum=1)
    batch_tokens: int = flag(512, "Tokens in a batch of an engine.", minimum=1)
    rounds: int = flag(5, "Timed rounds, after one that is not.", minimum=1)


def main(config: EngineBenchmarkConfig) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    lengths = squad_lengths(config.windows)
    offsets = offsets_of(lengths)
    ids = np.random.default_rng(0).integers(5, 30522, offsets[-1]).astype(np.int32)
    peer = build_peer(config.preset)
    contenders: dict[str, Callable[[], Any]] = {}
    with tempfile.TemporaryDirectory(prefix="bert-benchmark-") as folder:
        save_peer(peer, Path(folder))
        for name in config.formats.split(","):
            engine = exported(config, Path(folder), name, device.type)
            contenders[f"this suite, {name}"] = lambda engine=engine: engine(ids, np.zeros_like(ids), offsets)
        model = peer.to(device, DTYPES[config.precision]).eval()
        model.set_attn_implementation("sdpa")
        order = np.argsort(-lengths)
        for title, sort, width in (("padded to 384", False, MOST_TOKENS), ("sorted, to the longest", True, 0)):
            batches = padded_batches(config, ids, offsets, order if sort else np.arange(len(lengths)), width)
            contenders[f"transformers, {title}"] = lambda batches=batches: run_batches(model, batches, device)
        take_turns(contenders, 1, device)
        seconds = take_turns(contenders, config.rounds, device)
    print(f"{describe_device(device)}, {config.preset}, {config.precision}")
    first = next(iter(seconds.values()))
    for title, taken in seconds.items():
        rate = config.windows / statistics.median(taken)
        print(f"{title:38}{rate:12.1f} windows/s{median_ratio(taken, first):8.2f}x")


def exported(config: EngineBenchmarkConfig, folder: Path, name: str, device: str) -> Any:
    """Export, prove equal, load."""
    version = folder / name
    version.mkdir()
    served = open_checkpoint(ServedConfig(str(folder), "qa"))
    write_model(served, name, config.precision, version, device, config.batch_tokens)
    engine = load_engine(version, torch.get_num_threads(), device)
    worst = max(check_parity(served, engine), key=lambda parity: parity.difference)
    print(f"{name}: {worst}")
    return engine


def padded_batches(
    config: EngineBenchmarkConfig, ids: NDArray, offsets: NDArray, order: NDArray, width: int
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Cut the windows into batches of ids and masks."""
    batches = []
    for begin in range(0, len(order), config.batch_size):
        rows = [ids[offsets[k] : offsets[k + 1]] for k in order[begin : begin + config.batch_size]]
        shape = (len(rows), width or max(map(len, rows)))
        table, mask = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.int64)
        for number, row in enumerate(rows):
            table[number, : len(row)], mask[number, : len(row)] = torch.from_numpy(row), 1
        batches.append((table, mask))
    return batches


@torch.inference_mode()
def run_batches(model: Any, batches: list[tuple[torch.Tensor, torch.Tensor]], device: torch.device) -> None:
    for ids, mask in batches:
        found = model(input_ids=ids.to(device), attention_mask=mask.to(device))
        for logits in (found.start_logits, found.end_logits):
            logits.float().cpu()


if __name__ == "__main__":
    run_command(main, EngineBenchmarkConfig)
