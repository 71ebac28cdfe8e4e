"""Run an exported model: token ids and types of S sequences, end to end, in; the outputs as arrays, out.

    engine = load_engine(folder, threads=1)             # the folder of one version: the model and settings.json
    start, end = engine(ids, types, offsets)            # [T], [T], [S + 1] -> [T], [T]

Nothing is padded. A large batch is run in parts of at most ``batch_tokens`` tokens, shorter sequences first, so that
memory stays bounded however many windows come at once.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bert.errors import UsageError, naming_os_errors
from bert.ragged import offsets_of, ranges

SETTINGS = "settings.json"
Run = Callable[..., list[NDArray]]  # ids, types, cu_seqlens, longest and, of several tasks, tasks -> outputs


@dataclass(frozen=True)
class Engine:
    """An exported model, ready to run."""

    run: Run
    settings: dict[str, Any]

    def __call__(
        self, ids: NDArray, types: NDArray, offsets: NDArray, tasks: NDArray | None = None
    ) -> list[NDArray[np.float32]]:
        """[T], [T], [S + 1] -> the outputs, each with a row for every token or every sequence, in order.

        ``tasks`` [S] are the numbers of the sequences' tasks, by which each part is sorted.
        """
        lengths, per_token = np.diff(offsets), self.settings["per_token"]
        parts: list[list[NDArray]] = []
        order = np.argsort(lengths, kind="stable")
        for chosen in parts_of(lengths[order], self.settings["batch_tokens"]):
            if tasks is not None:
                order[chosen] = order[chosen][np.argsort(tasks[order[chosen]], kind="stable")]
            rows = order[chosen]
            index = ranges(offsets[rows], lengths[rows])
            cu = offsets_of(lengths[rows])
            named = () if tasks is None else (tasks[rows],)
            outputs = self.run(ids[index], types[index], cu.astype(np.int32), int(lengths[rows].max()), *named)
            parts.append([output[-(len(index) if per_token else len(rows)) :] for output in outputs])
        places = ranges(offsets[order], lengths[order]) if per_token else order
        return [_restored([part[k] for part in parts], places) for k in range(len(parts[0]))]


def parts_of(lengths: NDArray, budget: int) -> list[slice]:
    """Cut sequences into runs of at most ``budget`` tokens, or of one sequence.

    parts_of([2, 3, 9, 4], 5)       # [0:2], [2:3], [3:4]
    """
    parts, begin, used = [], 0, 0
    for number, length in enumerate(lengths.tolist()):
        if number > begin and used + length > budget:
            parts.append(slice(begin, number))
            begin, used = number, 0
        used += length
    return [*parts, slice(begin, len(lengths))]


def _restored(parts: list[NDArray], places: NDArray) -> NDArray[np.float32]:
    rows = np.concatenate(parts)
    result = np.empty_like(rows)
    result[places] = rows
    return result


def load_engine(folder: str | Path, threads: int = 1, device: str = "cpu") -> Engine:
    """Load the model of a version folder; raises UsageError where a file or a package is missing."""
    folder = Path(folder)
    with naming_os_errors(str(folder / SETTINGS)):
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf8"))
    path = folder / settings["file"]
    with naming_os_errors(str(path)):
        path.stat()
    return Engine(LOADERS[settings["format"]](path, threads, device), settings)


def _load_onnx(path: Path, threads: int, device: str) -> Run:
    try:
        import onnxruntime  # imported here: the other formats do not need it
    except ImportError as error:
        raise UsageError("onnxruntime is not installed: run `bash triton/setup.sh`") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # A waiting thread that spins takes the core from another instance.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers = ["CUDAExecutionProvider"] if device == "cuda" else ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(path, options, providers=providers)

    def run(ids: NDArray, types: NDArray, cu: NDArray, longest: int) -> list[NDArray]:
        inputs = {"input__0": ids, "input__1": types, "cu_seqlens": cu, "longest": np.empty(longest, np.int32)}
        return list(session.run(None, inputs))  # type: ignore[arg-type]  # arrays, as all outputs are tensors

    return run


def _torch_run(model: Callable[..., Any], device: str, least: int = 1) -> Run:
    """Wrap a torch callable; ``least`` is the number of sequences that it was exported for at least."""
    import torch  # imported here: an ONNX engine starts faster without

    def run(ids: NDArray, types: NDArray, cu: NDArray, longest: int) -> list[NDArray]:
        # A lone sequence gets an empty one in front: exported programs are specialised at 1. Its row is cut off.
        cu = np.append(np.zeros(max(least + 1 - len(cu), 0), np.int32), cu)
        arrays = (ids, types, cu, np.empty(longest, np.int32))
        with torch.inference_mode():
            outputs = model(*(torch.from_numpy(np.ascontiguousarray(array)).to(device) for array in arrays))
        return [output.float().cpu().numpy() for output in outputs]

    return run


def _with_threads(threads: int) -> Any:
    import torch

    torch.set_num_threads(threads)
    return torch


def _load_torchscript(path: Path, threads: int, device: str) -> Run:
    torch = _with_threads(threads)
    return _torch_run(torch.jit.load(str(path), map_location=device), device, least=2)


def _load_torch_export(path: Path, threads: int, device: str) -> Run:
    torch = _with_threads(threads)
    return _torch_run(torch.export.load(path).module().to(device), device, least=2)


def _load_aoti(path: Path, threads: int, device: str) -> Run:
    torch = _with_threads(threads)
    return _torch_run(torch._inductor.aoti_load_package(str(path)), device, least=2)


LOADERS: dict[str, Callable[[Path, int, str], Run]] = {
    "onnx": _load_onnx,
    "torch_export": _load_torch_export,
    "aoti": _load_aoti,
    "torchscript": _load_torchscript,
}
