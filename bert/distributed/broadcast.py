"""One rank reads, all get the result: tensors and plain values over the ranks' connection, nothing pickled.

::

    state = read_once(world, lambda: load(path))        # a UsageError of the reader ends all ranks with one line

What is not a tensor travels as JSON, the bytes of each tensor in pieces; a tensor that occurs twice is sent once.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from bert.distributed.world import World, collective_errors

PIECE = 1 << 26  # bytes of one broadcast


def read_once(world: World, read: Callable[[], Any]) -> Any:
    """Return on every rank what ``read`` returns on rank 0: dicts, lists and tuples of tensors and plain values."""
    value = None
    with collective_errors(world):
        if world.is_main:
            value = read()
    return value if world.size == 1 else broadcast(value)


def broadcast(value: Any) -> Any:
    """Return rank 0's ``value`` on every rank; rank 0 gets its own back, on the others tensors are in host memory."""
    is_main, tensors = dist.get_rank() == 0, dict[Any, tuple[int, Tensor]]()
    text = json.dumps(_spelled(value, tensors)).encode() if is_main else b""
    length = torch.tensor([len(text)])
    dist.broadcast(length, 0)
    data = (
        torch.frombuffer(bytearray(text), dtype=torch.uint8) if is_main else torch.empty(int(length), dtype=torch.uint8)
    )
    _send(data)
    if is_main:
        for _, tensor in tensors.values():
            _send(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8))
        return value
    received: dict[int, Tensor] = {}
    return _read(json.loads(data.numpy().tobytes()), received)


def _send(data: Tensor) -> None:
    """Broadcast bytes, or receive them into ``data``."""
    for piece in data.split(PIECE) if data.numel() else ():
        dist.broadcast(piece, 0)


def _spelled(value: Any, tensors: dict[Any, tuple[int, Tensor]]) -> Any:
    """Return ``value`` for JSON, and note its tensors in the order in which they are read."""
    if isinstance(value, Tensor):
        view = (value.data_ptr(), value.dtype, value.shape, value.stride())
        number, _ = tensors.setdefault(view, (len(tensors), value))
        return {"tensor": number, "dtype": str(value.dtype).removeprefix("torch."), "shape": list(value.shape)}
    if isinstance(value, dict):
        return {"dict": [[_spelled(key, tensors), _spelled(item, tensors)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        return {"list" if isinstance(value, list) else "tuple": [_spelled(item, tensors) for item in value]}
    return {"bytes": value.hex()} if isinstance(value, bytes) else value


def _read(value: Any, received: dict[int, Tensor]) -> Any:
    """Undo :func:`_spelled`, receiving each tensor where it comes first."""
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        number = value["tensor"]
        if number not in received:
            received[number] = torch.empty(value["shape"], dtype=getattr(torch, value["dtype"]))
            _send(received[number].reshape(-1).view(torch.uint8))
        return received[number]
    ((kind, items),) = value.items()
    if kind == "dict":
        return {_read(key, received): _read(item, received) for key, item in items}
    if kind == "bytes":
        return bytes.fromhex(items)
    return {"list": list, "tuple": tuple}[kind](_read(item, received) for item in items)
