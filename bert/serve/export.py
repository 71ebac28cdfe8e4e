"""Formats of an exported model: a table of what writes each, and in which number formats.

write_model(served, "onnx", "fp32", Path("model_repository/bert/1"))     # model.onnx and settings.json
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bert.batch import TokenStream
from bert.errors import UsageError
from bert.serve.engine import SETTINGS
from bert.serve.tasks import Served, ServedModel

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class Stream(nn.Module):
    """A served model as a function of tensors; ``longest`` [M] carries the longest length as its shape."""

    def __init__(self, model: ServedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, types: Tensor, cu_seqlens: Tensor, longest: Tensor) -> tuple[Tensor, ...]:
        """[T], [T], [S + 1], [M] int32 -> the model's outputs in fp32."""
        return self.model.predict(TokenStream(ids.long(), types.long(), cu_seqlens, longest.shape[0]))


def _example(device: str) -> tuple[Tensor, ...]:
    """Three sequences of 7, 4 and 5 tokens."""
    cu = torch.tensor([0, 7, 11, 16], dtype=torch.int32)
    ids = torch.arange(16, dtype=torch.int32)
    values = (ids, ids % 2, cu, torch.zeros(7, dtype=torch.int32))
    return tuple(value.to(device) for value in values)


def _stream(served: Served, precision: str, device: str) -> Stream:
    model = copy.deepcopy(served.model)  # the gate compares with the trained one, in fp32
    model.bert.attention = "sdpa"
    return Stream(model).to(device, DTYPES[precision]).eval()


def write_onnx(served: Served, precision: str, path: Path, device: str, attention: str = "loop") -> None:
    """Write the hand-built graph; int8 quantises the weights of the products, per output channel."""
    try:
        import onnx  # imported here: the other formats do not need it

        from bert.serve.onnx_graph import build_onnx
    except ImportError as error:
        raise UsageError("onnx is not installed: run `bash triton/setup.sh`") from error
    adapter = served.start.model_config.adapter
    if adapter is not None:
        raise UsageError(f"--format onnx: the model has adapters ({adapter.kind}), expected --format torch_export")
    dtype = np.float16 if precision == "fp16" else np.float32
    graph = build_onnx(served.task, served.model, attention, dtype)
    if precision == "int8":
        from onnxruntime.quantization import QuantType, quantize_dynamic

        # 7 bits: without VNNI the processor adds pairs of 8-bit products in 16 bits, which would overflow.
        quantize_dynamic(
            graph,
            path,
            ["MatMul"],
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
        )
    else:
        onnx.save(graph, path)


def exported_program(stream: Stream, device: str) -> torch.export.ExportedProgram:
    """Trace ``stream`` with any number of tokens and any number of sequences from two on."""
    tokens, bounds, longest = (torch.export.Dim(name, min=n) for name, n in (("T", 2), ("bounds", 3), ("M", 2)))
    shapes = ({0: tokens}, {0: tokens}, {0: bounds}, {0: longest})
    with torch.no_grad():
        return torch.export.export(stream, _example(device), dynamic_shapes=shapes)


def write_torch_export(served: Served, precision: str, path: Path, device: str) -> None:
    torch.export.save(exported_program(_stream(served, precision, device), device), path)


def write_aoti(served: Served, precision: str, path: Path, device: str) -> None:
    """Compile ahead of time, which takes a C++ compiler and a minute or two."""
    program = exported_program(_stream(served, precision, device), device)
    torch._inductor.aoti_compile_and_package(program, package_path=str(path))


def write_torchscript(served: Served, precision: str, path: Path, device: str) -> None:
    with torch.no_grad():
        traced: Any = torch.jit.trace(_stream(served, precision, device), _example(device), check_trace=False)
    traced.save(str(path))


@dataclass(frozen=True)
class Format:
    """How a model is written."""

    file: str
    precisions: tuple[str, ...]
    write: Callable[[Served, str, Path, str], None]


FORMATS = {
    "onnx": Format("model.onnx", ("fp32", "fp16", "int8"), write_onnx),
    "torch_export": Format("model.pt2", ("fp32", "fp16", "bf16"), write_torch_export),
    "aoti": Format("model.pt2", ("fp32", "fp16", "bf16"), write_aoti),
    "torchscript": Format("model.pt", ("fp32", "fp16", "bf16"), write_torchscript),  # deprecated by PyTorch
}


def check_precision(kind: str, precision: str) -> None:
    """Raise UsageError unless the format has the number format."""
    able = [name for name, each in FORMATS.items() if precision in each.precisions]
    if precision not in FORMATS[kind].precisions:
        raise UsageError(f"--precision {precision}: --format {kind} has none, expected --format {' or '.join(able)}")


def write_model(served: Served, kind: str, precision: str, folder: Path, device: str, batch_tokens: int) -> None:
    """Write the model and its settings into ``folder``."""
    form = FORMATS[kind]
    form.write(served, precision, folder / form.file, device)
    config = served.start.model_config
    settings: dict[str, Any] = {
        "format": kind,
        "precision": precision,
        "file": form.file,
        "task": served.task,
        "per_token": served.model.per_token,
        "outputs": served.model.outputs,
        "vocab_size": config.vocab_size,
        "type_vocab_size": config.type_vocab_size,
        "max_positions": config.max_position_embeddings,
        "batch_tokens": batch_tokens,
    }
    (folder / SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf8")
