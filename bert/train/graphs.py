"""CUDA graphs: one launch for a micro-step or an update instead of thousands, where the host is the limit.

A graph is a recording of kernels with fixed shapes and addresses. So batches are padded to one of few shapes
(:mod:`bert.train.static_batch`), and input, gradients, loss parts, loss scales and learning rates stay at one address.
A shape runs without a graph when it is first seen, which compiles its kernels; it is recorded when seen again, and
replayed from then on. Random numbers are those of a run without replay: torch hands seed and offset to a graph at every
replay::

    steps = GraphedSteps(micro_step, update, parameters, CudaCapture(device), longest=512)
    steps.begin(scales)
    steps.micro_step(batch)         # as often as there are micro-batches
    parts = steps.finish()          # gradients are summed over the ranks
    norm = steps.update()
    steps.discard()                 # sets the gradients to zero

Communication stays outside the graphs, so nothing of it overlaps with the last micro-batch's backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from bert.batch import TokenStream
from bert.distributed import all_reduce_sum
from bert.memory import upload
from bert.model.adapters.plain import NoAdapters
from bert.model.objective import MultiTaskObjective
from bert.optim.bertadam import BertAdam
from bert.optim.lamb import Lamb
from bert.train.parallel import ParallelConfig
from bert.train.precision import Precision
from bert.train.static_batch import StaticShape, refill, static_batch, static_shape

# What --cuda_graphs auto means. Off: no graph has been captured on a GPU yet. The tests marked gpu are the proof to
# wait for.
AUTO = False
# Graphs of one kind; shapes beyond run without. Recording takes as long as a step, and waits for the device.
LIMIT = 32

R = TypeVar("R")


class Capture(Protocol):
    """How work is recorded; the test suite has one for the CPU."""

    def run(self, work: Callable[[], R]) -> R:
        """Run ``work`` as what :meth:`record` needs to have run before."""
        ...

    def record(self, work: Callable[[], R]) -> Callable[[], R]:
        """Record ``work`` without running it; the replay returns the same tensors each time."""
        ...


class CudaCapture:
    """torch.cuda.graph, with one stream and one pool of memory for all graphs: they never run at the same time."""

    def __init__(self, device: torch.device) -> None:
        self._stream, self._pool = torch.cuda.Stream(device), torch.cuda.graph_pool_handle()

    def run(self, work: Callable[[], R]) -> R:
        current = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            result = work()
        current.wait_stream(self._stream)
        return result

    def record(self, work: Callable[[], R]) -> Callable[[], R]:
        graph = torch.cuda.CUDAGraph()
        # thread_local: the loader's threads may allocate page-locked memory meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            result = work()

        def replay() -> R:
            graph.replay()
            return result

        return replay


class ShapeGraphs(Generic[R]):
    """``work`` on batches of any shape, by one graph per static shape; results are valid until the next call."""

    def __init__(self, work: Callable[[Any], R], capture: Capture, device: torch.device, longest: int) -> None:
        """``longest``: of the positions that the model has."""
        self._work, self._capture, self._device, self._longest = work, capture, device, longest
        self._seen: set[tuple[StaticShape, Any]] = set()
        self.graphs: dict[tuple[StaticShape, Any], tuple[Any, Callable[[], R]]] = {}

    def __call__(self, batch: TokenStream, variant: Any = None) -> R:
        """``variant`` is what the work depends on besides the batch and tensors at fixed addresses."""
        shape = static_shape(batch, self._longest)
        key = shape, variant
        if key in self.graphs:
            padded, replay = self.graphs[key]
            refill(padded, batch)
            return replay()
        # Padded even without a graph: dropout masks depend on the shape, not on when it was recorded.
        padded = static_batch(batch, shape, self._device)
        if key not in self._seen or len(self.graphs) == LIMIT:
            self._seen.add(key)
            return self._capture.run(lambda: self._work(padded))
        replay = self._capture.record(lambda: self._work(padded))
        self.graphs[key] = padded, replay
        return replay()


class FlatGradients:
    """Gradients at fixed addresses, one buffer for each dtype; a parameter that has none keeps none."""

    ALIGNMENT = 64  # elements between the starts of two gradients: 128 bytes in half precision

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self._parameters = list(parameters)
        self.buffers: list[Tensor] = []

    def adopt(self) -> None:
        """Move the gradients of the first micro-step into buffers; backward passes then add to them in place."""
        used = [p for p in self._parameters if p.grad is not None]
        for dtype in dict.fromkeys(p.dtype for p in used):  # in the same order on every rank
            same = [p for p in used if p.dtype == dtype]
            places = [0]
            for p in same:
                places.append(places[-1] + -(-p.numel() // self.ALIGNMENT) * self.ALIGNMENT)
            buffer = torch.zeros(places[-1], dtype=dtype, device=same[0].device)
            for p, start in zip(same, places, strict=False):
                p.grad = buffer[start : start + p.numel()].view(p.shape).copy_(p.grad)  # type: ignore[arg-type]
            self.buffers.append(buffer)

    def sum_over_ranks(self) -> None:
        for buffer in self.buffers:
            all_reduce_sum(buffer)


class GraphedSteps:
    """The optimizer step of a trainer in graphs: one per shape for micro-steps, one for the update."""

    def __init__(
        self,
        micro_step: Callable[[Any, dict[str, Tensor], dict[str, Tensor]], None],
        update: Callable[[], Tensor],
        objective: Any,
        optimizer: Any,
        capture: Capture,
    ) -> None:
        """``micro_step(batch, scales, parts)`` adds to gradients and parts; ``update`` returns the gradient norm."""
        parameters = list(objective.parameters())
        self._device, self._capture = parameters[0].device, capture
        self._scales: dict[str, Tensor] = {}
        self._parts: dict[str, Tensor] = {}
        longest = objective.model.config.max_position_embeddings
        self.micro_steps = ShapeGraphs(
            lambda batch: micro_step(batch, self._scales, self._parts), capture, self._device, longest
        )
        self._gradients = FlatGradients(parameters)
        self._update, self._optimizer = update, optimizer
        self._rates = torch.empty(len(optimizer.param_groups), device=self._device)
        self.records_update = updates_on_device(optimizer, self._device)
        self.forget_update()

    def begin(self, scales: dict[str, Tensor]) -> None:
        """Start an optimizer step, whose losses are multiplied by ``scales``."""
        if not self._scales:
            self._scales = {name: scale.clone() for name, scale in scales.items()}
            self._parts = {name: torch.zeros_like(scale) for name, scale in scales.items()}
        for name, scale in scales.items():
            self._scales[name].copy_(scale)
            self._parts[name].zero_()

    def micro_step(self, batch: TokenStream, variant: Any = None) -> None:
        """Add the gradients and losses of ``batch``; for ``variant`` see :meth:`ShapeGraphs.__call__`."""
        self.micro_steps(batch, variant)
        if not self._gradients.buffers:
            self._gradients.adopt()

    def discard(self) -> None:
        """Forget the micro-steps since the last update, or the gradients that it has used."""
        for buffer in self._gradients.buffers:
            buffer.zero_()

    def finish(self) -> dict[str, Tensor]:
        """Sum the gradients over the ranks and return this rank's part of each loss."""
        self._gradients.sum_over_ranks()
        return {name: part.clone() for name, part in self._parts.items()}

    def update(self) -> Tensor:
        """Take the step with the learning rates of the parameter groups; return the gradient norm, on the device."""
        if not self.records_update:
            return self._update()
        rates = torch.tensor([group["lr"] for group in self._optimizer.param_groups], dtype=torch.float32)
        self._rates.copy_(upload(rates, self._device))
        if self._replay is None and self._updated:
            self._replay = self._capture.record(self._update_on_device)
        self._updated = True
        return self._replay() if self._replay else self._capture.run(self._update_on_device)

    def forget_update(self) -> None:
        """Record the update anew: the optimizer has other tensors."""
        self._updated, self._replay = False, None

    def _update_on_device(self) -> Tensor:
        """Update with learning rates that are read on the device, at every replay."""
        groups = self._optimizer.param_groups
        capturing = self._device.type == "cuda" and torch.cuda.is_current_stream_capturing()
        own = [dict(group) for group in groups]
        for group, rate in zip(groups, self._rates, strict=True):
            group["lr"] = rate
            if capturing and "capturable" in group:  # torch's own optimizers ask for it
                group["capturable"] = True
        try:
            return self._update()
        finally:
            for group, before in zip(groups, own, strict=True):
                group.update({name: before[name] for name in ("lr", "capturable") if name in before})


class GraphedPredictor:
    """An objective whose predictions are graphs; outputs are valid until the next call."""

    def __init__(self, objective: Any, capture: Capture, device: torch.device) -> None:
        self.per_token, self.width = objective.per_token, objective.width
        self.eval, self.train = objective.eval, objective.train
        longest = objective.model.config.max_position_embeddings
        self._graphs = ShapeGraphs(objective.predict, capture, device, longest)

    def predict(self, batch: TokenStream) -> Tensor:
        """Return the outputs of the real tokens or sequences."""
        return self._graphs(batch)[: batch.num_tokens if self.per_token else batch.num_sequences]


def build_predictor(config: ParallelConfig, objective: Any, precision: Precision) -> Any:
    """Return what predicts as ``objective`` does, with graphs where ``--cuda_graphs`` says so."""
    capture = build_capture(config, objective, precision)
    return GraphedPredictor(objective, capture, precision.device) if capture else objective


def updates_on_device(optimizer: Any, device: torch.device) -> bool:
    """Tell whether an optimizer's step reads nothing on the host, so that it can be recorded."""
    return device.type == "cuda" and (
        isinstance(optimizer, Lamb | BertAdam) or bool(getattr(optimizer, "defaults", {}).get("fused"))
    )


def build_capture(
    config: ParallelConfig, objective: Any, precision: Precision, notice: Callable[[str], object] = lambda line: None
) -> Capture | None:
    """Decide ``--cuda_graphs``: what records, or None. An obstacle is a notice where graphs were asked for."""
    if not (AUTO if config.cuda_graphs is None else config.cuda_graphs):
        return None
    obstacle = graphs_obstacle(config, objective, precision)
    if obstacle is None:
        return CudaCapture(precision.device)
    if config.cuda_graphs:
        notice(f"--cuda_graphs on: {obstacle}; running without graphs")
    return None


def graphs_obstacle(config: ParallelConfig, objective: Any, precision: Precision) -> str | None:
    """Return why a run cannot use graphs, or None."""
    several = isinstance(objective, MultiTaskObjective) or not isinstance(objective.model.bert.adapters, NoAdapters)
    obstacles: Sequence[tuple[bool, str]] = (
        (precision.device.type != "cuda", "graphs need a CUDA device"),
        (several, "adapters and several tasks divide each batch differently"),
        (config.checkpoint_activations, "--checkpoint_activations reads the random state on the host"),
        (precision.loss_scale.dynamic, "an adaptive loss scale is decided on the host; use --bf16 or --loss_scale"),
    )
    return next((text for there, text in obstacles if there), None)
