"""The models of the inference commands, where they run, and the dumps of what they return.

run = open_model(parser, args)                      # pyt, ts-trace, ts-script or onnx: arrays -> arrays
dumper = Dumper.of(args)
for batch in batches():
    dumper.write(batch, run(batch[1]))
"""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bert.client.flow import in_order
from bert.client.triton_client import Failed, TritonClient
from bert.deployment.dumps import PREFIXES, Arrays, write_dump
from bert.deployment.plugin import Parser, add_signature_flags, load_symbol, spellings
from bert.deployment.questions import Batch
from bert.errors import UsageError, naming_os_errors

FOREIGN = ("tf-estimator", "tf-keras", "tf-savedmodel", "tf-trt", "trt")


def check_type(flag: str, value: str, known: tuple[str, ...]) -> None:
    """Raise UsageError for a format of NVIDIA's scripts that is not supported here, or for no format at all."""
    if value not in known:
        why = "not supported, " if value in FOREIGN else ""
        raise UsageError(f"{flag} {value}: {why}expected {' or '.join(known)}")


def add_model_flags(parser: argparse.ArgumentParser, path: str) -> Callable[..., tuple]:
    """Load a model file; returns its ``get_model`` after adding its flags."""
    get_model = load_symbol(path, "get_model", "--input-path")
    update = load_symbol(path, "update_argparser", "--input-path", required=False)
    if update is not None:
        update(parser)
    else:
        add_signature_flags(parser, get_model)
    return get_model


def add_dump_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dataloader", required=True, help="Python file with get_dataloader_fn.")
    parser.add_argument(*spellings("output_dir"), required=True, help="Folder for the dumps; old ones are replaced.")
    parser.add_argument(*spellings("dump_labels"), action="store_true", help="Write the labels, too.")
    parser.add_argument(*spellings("dump_inputs"), action="store_true", help="Write the inputs, too.")
    parser.add_argument("-v", "--verbose", action="store_true", help="Name every file that is written.")


@dataclass
class Dumper:
    """Writes batches to a folder."""

    folder: Path
    prefixes: tuple[str, ...]
    verbose: bool
    batches: int = 0
    samples: int = 0

    @classmethod
    def of(cls, args: argparse.Namespace) -> Dumper:
        folder, wanted = Path(args.output_dir), {"labels": args.dump_labels, "inputs": args.dump_inputs}
        with naming_os_errors(f"--output-dir {folder}"):
            folder.mkdir(parents=True, exist_ok=True)
            for prefix in PREFIXES:
                for old in folder.glob(f"{prefix}-{'[0-9]' * 12}.json"):
                    old.unlink()
        return cls(folder, tuple(each for each in PREFIXES if wanted.get(each, True)), args.verbose)

    def write(self, batch: Batch, outputs: Arrays) -> None:
        ids, x, y = batch
        parts = {"ids": {"ids": np.asarray(ids)}, "inputs": x, "labels": y, "outputs": outputs}
        for prefix in self.prefixes:
            if parts[prefix]:
                write_dump(self.folder, prefix, self.batches, parts[prefix])
        self.batches, self.samples = self.batches + 1, self.samples + len(ids)
        if self.verbose:
            print(f"batch {self.batches}: {len(ids)} samples")


async def infer_on_triton(
    triton: TritonClient, batches: Iterator[Batch], in_flight: int
) -> AsyncIterator[tuple[Batch, Arrays]]:
    """Yield each batch with the model's outputs, in order; raises UsageError for one that fails."""

    async def infer(batch: Batch) -> tuple[Batch, Arrays]:
        known = {name: array for name, array in batch[1].items() if name in triton.names}
        if not known:
            raise UsageError(f"--model-name {triton.model}: takes {', '.join(triton.names)}, not {', '.join(batch[1])}")
        try:
            return batch, await triton.infer(known)
        except Failed as error:
            raise UsageError(f"--model-name {triton.model}: {error}") from error

    async for each in in_order(infer, batches, in_flight):
        yield each


def parse_with_dataloader(parser: Parser) -> tuple[argparse.Namespace, Callable[..., Callable[[], Iterator[Batch]]]]:
    """Parse all flags, those of the --dataloader file included; returns them and its get_dataloader_fn."""
    make = parser.load(parser.first().dataloader, "get_dataloader_fn", "--dataloader")
    return parser.last(), make
