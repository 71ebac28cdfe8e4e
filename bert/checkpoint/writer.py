"""Saving without stopping the training loop for longer than one copy of the state.

Invariant: at most one save is in flight, and no save fails unnoticed::

    with CheckpointWriter("results/checkpoints", keep=3) as writer:
        writer.save(100, {"model": model.state_dict(), "phase": 1})     # returns once the state is copied
"""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bert.checkpoint.files import prune, read_description, remove_leftovers, write_checkpoint
from bert.checkpoint.pieces import Pieces, delete_pieces, wait_for
from bert.checkpoint.resume import CheckpointConfig
from bert.errors import naming_os_errors

PLAIN = (type(None), bool, int, float, str, bytes)  # exactly: numpy's float64 is a float, but cannot be loaded


class CheckpointWriter(AbstractContextManager["CheckpointWriter"]):
    """Write checkpoints to a directory, one at a time, in a thread.

    With ``pieces`` every rank has a writer: it writes its part of a sharded optimizer's state, and rank 0 all else.
    An error in the thread (a full disk) is raised by the next ``save``, ``wait`` or ``close``, an OSError as a
    UsageError. Leaving the ``with`` block waits for the last file.
    """

    def __init__(self, directory: str | Path, keep: int = 3, pieces: Pieces | None = None) -> None:
        self.directory, self.keep, self.pieces, self.saves = Path(directory), keep, pieces, 0
        self._is_main, self._given_up = pieces is None or pieces.rank == 0, threading.Event()
        with naming_os_errors(f"cannot save {self.directory}"):
            self.directory.mkdir(parents=True, exist_ok=True)
            if self._is_main:
                remove_leftovers(self.directory)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None

    def save(self, name_step: int, state: dict[str, Any], keep_forever: bool = False) -> None:
        """Copy ``state`` and start writing it to ``ckpt_{name_step}.pt``; the caller may change it at once.

        ``keep_forever`` exempts the file from pruning (the end of phase 1). Raises TypeError, naming the key, for
        anything but tensors and plain values.
        """
        self.wait()
        self.saves += 1
        if not self._is_main:
            state = {"optimizer": state["optimizer"]}
        self._pending = self._thread.submit(self._write, name_step, copy_state(state), keep_forever)

    def wait(self) -> None:
        """Wait for the save in flight and raise its error, if any."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """Wait for the last save and end the thread."""
        try:
            self.wait()
        finally:
            self._thread.shutdown()

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if error is not None:
            self._given_up.set()  # the other ranks may have ended
        try:
            self.close()
        except Exception as failure:
            if error is None:
                raise
            error.add_note(f"The last checkpoint was not written either: {failure}")

    def _write(self, step: int, state: dict[str, Any], keep: bool) -> None:
        path = self.directory / f"ckpt_{step}.pt"
        names = self.pieces.names(path.stem, self.saves) if self.pieces else []
        if self.pieces:
            optimizer, piece = state["optimizer"], self.directory / names[self.pieces.rank]
            with naming_os_errors(f"cannot save {piece}"):
                write_checkpoint(piece, step, {"state": optimizer["state"]}, keep=False)
            if not self._is_main:
                return
            state["optimizer"] = {"param_groups": optimizer["param_groups"], "pieces": names}
            wait_for([self.directory / name for name in names], self.pieces.patience, self._given_up)
        old = read_description(path) if path.exists() else None
        if old is not None and old.keep:
            if old.phase != state.get("phase"):
                delete_pieces(self.directory, path.stem, old.pieces)
                return  # step 0 of phase 2 has the number, weights and moments of the end of phase 1
            keep = True
        with naming_os_errors(f"cannot save {path}"):
            write_checkpoint(path, step, state, keep, names)
            delete_pieces(self.directory, path.stem, names)
            prune(self.directory, self.keep, path)


class NullCheckpointWriter(AbstractContextManager["NullCheckpointWriter"]):
    """Saves nothing: for the ranks other than 0 and for --skip_checkpoint."""

    def save(self, name_step: int, state: dict[str, Any], keep_forever: bool = False) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def build_checkpoint_writer(
    config: CheckpointConfig, directory: str | Path, is_main: bool, pieces: Pieces | None = None
) -> CheckpointWriter | NullCheckpointWriter:
    """Return the writer of this rank; with ``pieces`` every rank writes."""
    if config.skip_checkpoint or not (is_main or pieces):
        return NullCheckpointWriter()
    return CheckpointWriter(directory, config.keep_checkpoints, pieces)


def copy_state(state: dict[str, Any]) -> dict[str, Any]:
    """Copy a state to host memory; a tensor that occurs twice (tied weights) is copied once.

    Raises TypeError, naming the key, for anything that ``torch.load(weights_only=True)`` would refuse.
    """
    copies: dict[tuple[Any, ...], Tensor] = {}

    def copy_tensor(tensor: Tensor) -> Tensor:
        view = (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if view not in copies:
            # Pinned memory makes the copies fast and concurrent; torch keeps it for the next save.
            host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
            copies[view] = host.copy_(tensor.detach(), non_blocking=True)
        return copies[view]

    def copy(value: Any, name: str) -> Any:
        kind = type(value)
        if kind in PLAIN:
            return value
        if kind in (Tensor, nn.Parameter) and value.layout is torch.strided:
            return copy_tensor(value)
        if kind in (list, tuple):
            return kind(copy(item, f"{name}[{index}]") for index, item in enumerate(value))
        if isinstance(value, dict):
            for key in value:
                if type(key) not in (str, int):
                    raise TypeError(f"{name} has the key {key!r}: keys of a checkpoint are str or int")
            return {key: copy(item, f"{name}.{key}") for key, item in value.items()}
        raise TypeError(f"{name} is a {kind.__qualname__}: a checkpoint holds tensors and plain values only")

    copied = copy(state, "state")
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return copied
