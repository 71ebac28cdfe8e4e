"""The question-answering model on padded batches, for servers and scripts that know no other form.

Inputs ``input__0`` ids, ``input__1`` segment ids and ``input__2`` mask, [B, L] int32; outputs ``output__0`` start and
``output__1`` end logits, [B, L] fp32. Inside runs the model on the real tokens alone::

    model, names = get_model(checkpoint="results/SQuAD/pytorch_model.bin")
    start, end = model(ids, types, mask)
    write_model(model, names, "ts-trace", Path("model.pt"), example, WriteOptions())
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor, nn

from bert.checkpoint.open_model import ModelFiles
from bert.deployment.dumps import Arrays
from bert.deployment.plugin import boolean, spellings
from bert.errors import UsageError, naming_os_errors
from bert.files import replacing
from bert.serve.export import DTYPES, Stream
from bert.serve.requests import PADDING
from bert.serve.tasks import Served, ServedConfig, open_checkpoint

INPUTS, OUTPUTS = ("input__0", "input__1", "input__2"), ("output__0", "output__1")
Names = dict[str, list[str]]
Runner = Callable[[Arrays], Arrays]


class Padded(nn.Module):
    """A stream model as a function of padded batches; TorchScript can compile it."""

    def __init__(self, stream: nn.Module, served: Served | None = None) -> None:
        super().__init__()
        self.stream = stream
        self.padding = PADDING
        self.served = served  # the checkpoint, from which an ONNX graph is built

    def forward(self, input__0: Tensor, input__1: Tensor, input__2: Tensor) -> tuple[Tensor, Tensor]:
        """[B, L] × 3 -> start and end logits, each [B, L]."""
        real = input__2 != 0
        ends = torch.cumsum(real.sum(1), 0)
        # An empty sequence comes first: a program that was traced with one alone might be specialised to that.
        offsets = torch.cat([torch.zeros_like(ends[:1]), torch.zeros_like(ends[:1]), ends]).int()
        start, end = self.stream(input__0[real], input__1[real], offsets, input__0[0])
        empty = torch.full_like(input__0, self.padding, dtype=torch.float32)
        return empty.masked_scatter(real, start), empty.masked_scatter(real, end)


def update_argparser(parser: argparse.ArgumentParser) -> None:
    """Add the flags of :func:`get_model`."""
    parser.add_argument("--checkpoint", required=True, help="Model that run_squad.py trained, in any known format.")
    parser.add_argument("--precision", default="fp32", choices=("fp16", "fp32"), help="Number format. Default: fp32.")
    parser.add_argument("--cpu", action="store_true", help="Stay on the CPU where there is a GPU.")
    for name in ("config_file", "vocab_file"):
        parser.add_argument(*spellings(name), help="Needed for a checkpoint without it.")
    fixed: dict[str, Any] = {"type": boolean, "nargs": "?", "const": True, "default": False, "metavar": "BOOL"}
    parser.add_argument(*spellings("fixed_batch_dim"), **fixed, help="ONNX: the batch size is --batch-size.")


def get_model(
    checkpoint: str,
    precision: str = "fp32",
    config_file: str | None = None,
    vocab_file: str | None = None,
    cpu: bool = False,
    fixed_batch_dim: bool = False,
) -> tuple[Padded, Names]:
    """Return the model and the names of its tensors."""
    del fixed_batch_dim  # of the file that is written, not of the model
    # Lengths matter to the data alone: the smallest are right for every model.
    config = ServedConfig(checkpoint, "qa", max_seq_length=8, max_query_length=1)
    config.files = ModelFiles(config_file=config_file or None, vocab_file=vocab_file or None)
    served = open_checkpoint(config)
    served.model.bert.attention = "sdpa"
    device = "cuda" if torch.cuda.is_available() and not cpu else "cpu"
    # A stream in half precision is a model of its own: `served` stays in fp32 for the ONNX graph.
    model = served.model if precision == "fp32" else open_checkpoint(config).model
    model.bert.attention = "sdpa"
    stream = Stream(model).to(device, DTYPES[precision]).eval()
    return Padded(stream, served).eval(), {"inputs": list(INPUTS), "outputs": list(OUTPUTS)}


@dataclass(frozen=True)
class WriteOptions:
    """What the flags say of the file."""

    precision: str = "fp32"
    fixed_batch: bool = False
    onnx_opset: int = 20


def write_model(model: nn.Module, names: Names, kind: str, path: Path, example: Arrays, options: WriteOptions) -> None:
    """Write ``model`` as ``kind``, a key of WRITERS, and for TorchScript its signature, ``<path>.yaml``."""
    tensors = tuple(tensor_on(model, example[name]) for name in names["inputs"])
    with naming_os_errors(f"--output-path {path}"), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, and tracing warns of every shape
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            WRITERS[kind](model, names, temporary, tensors, options)
        if kind != "onnx":
            with replacing(path.with_name(path.name + ".yaml")) as temporary:
                outputs = dict(zip(names["outputs"], model(*tensors), strict=True))
                inputs = dict(zip(names["inputs"], tensors, strict=True))
                temporary.write_text(yaml.safe_dump({"inputs": _specs(inputs), "outputs": _specs(outputs)}))


def tensor_on(model: nn.Module, array: NDArray) -> Tensor:
    first = next(model.parameters(), torch.zeros(0))
    return torch.from_numpy(array).to(first.device)


def _specs(tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Describe tensors; the batch dimension is -1."""
    return {
        name: {"name": name, "dtype": str(each.dtype).removeprefix("torch."), "shape": [-1, *each.shape[1:]]}
        for name, each in tensors.items()
    }


def _write_trace(model: nn.Module, names: Names, path: Path, tensors: tuple[Tensor, ...], options: Any) -> None:
    del names, options
    _traced(model, tensors).save(str(path))


def _traced(model: nn.Module, tensors: tuple[Tensor, ...]) -> Any:
    return torch.jit.trace(model, tensors, check_trace=False)


def _write_script(model: nn.Module, names: Names, path: Path, tensors: tuple[Tensor, ...], options: Any) -> None:
    """Compile the module; of our own, the part on padded batches is compiled and the model inside traced."""
    del names, options
    if isinstance(model, Padded):
        real = tensors[2] != 0
        offsets = nn.functional.pad(real.sum(1).cumsum(0), (2, 0)).int()
        stream = (tensors[0][real], tensors[1][real], offsets, tensors[0][0])
        model = Padded(_traced(model.stream, stream))
    torch.jit.script(model).save(str(path))


def _write_onnx(model: nn.Module, names: Names, path: Path, tensors: tuple[Tensor, ...], options: WriteOptions) -> None:
    if isinstance(model, Padded) and model.served is not None:
        import onnx  # imported here: the other formats do not need it

        from bert.deployment.onnx_padded import build_padded

        dtype = np.float16 if options.precision == "fp16" else np.float32
        onnx.save(build_padded(model.served, dtype, len(tensors[0]) if options.fixed_batch else None), path)
        return
    every = [*names["inputs"], *names["outputs"]]
    axes = None if options.fixed_batch else {name: {0: "batch"} for name in every}
    torch.onnx.export(
        model, tensors, path, input_names=names["inputs"], output_names=names["outputs"],
        dynamic_axes=axes, opset_version=options.onnx_opset, dynamo=False,
    )  # fmt: skip


WRITERS: dict[str, Callable[..., None]] = {"ts-trace": _write_trace, "ts-script": _write_script, "onnx": _write_onnx}


def module_runner(model: nn.Module, names: Names) -> Runner:
    """Run a torch module on arrays by name."""

    def run(x: Arrays) -> Arrays:
        with torch.inference_mode():
            found = model(*(tensor_on(model, x[name]) for name in names["inputs"]))
        found = found if isinstance(found, tuple | list) else (found,)
        return {name: each.cpu().numpy() for name, each in zip(names["outputs"], found, strict=True)}

    return run


def torchscript_runner(path: str) -> Runner:
    """Run a TorchScript file; its names are those of its signature, ``<path>.yaml``, where there is one."""
    try:
        model = torch.jit.load(path, map_location="cuda" if torch.cuda.is_available() else "cpu")
    except (RuntimeError, ValueError) as error:
        raise UsageError(f"--input-path {path}: not a TorchScript file") from error
    names = {"inputs": list(INPUTS), "outputs": list(OUTPUTS)}
    signature = Path(f"{path}.yaml")
    if signature.is_file():
        names = {part: list(specs) for part, specs in yaml.safe_load(signature.read_text()).items()}
    return module_runner(model, names)


def onnx_runner(path: str) -> Runner:
    """Run an ONNX file."""
    try:
        import onnxruntime  # imported here: the other formats do not need it
    except ImportError as error:
        raise UsageError("onnxruntime is not installed: run `bash triton/setup.sh`") from error
    try:
        session = onnxruntime.InferenceSession(path, providers=onnxruntime.get_available_providers())
    except Exception as error:  # its own classes, some without a common base
        raise UsageError(f"--input-path {path}: not an ONNX file that runs here ({type(error).__name__})") from error
    inputs, outputs = ([each.name for each in part] for part in (session.get_inputs(), session.get_outputs()))

    def run(x: Arrays) -> Arrays:
        return dict(zip(outputs, session.run(outputs, {name: x[name] for name in inputs}), strict=True))  # type: ignore[arg-type]

    return run
