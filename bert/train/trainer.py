"""The training loop. It knows no task: an objective returns summed losses, a batch says how many terms they have.

Invariant: one optimizer step is a pure function of (parameters, moments, iteration, seed, the global batch). The loss
is divided by the number of terms in the whole step, over all micro-batches of all ranks, and dropout is seeded by
(seed, iteration, rank), so a resumed run simply repeats a step that was cut off::

    trainer = Trainer(run, objective, optimizer, learning_rate)
    outcome = trainer.fit(loader, last_step=7038, hooks=Hooks(report=..., evaluate=..., save=...))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from bert.distributed import all_gather_floats, all_reduce_max, all_reduce_sum, seed_everything
from bert.errors import UsageError
from bert.log import progress
from bert.memory import RELEASE_EVERY, HostCopy, build_release, peak_memory, upload
from bert.optim.build import apply_gradients
from bert.optim.host import HostOptimizer
from bert.optim.sharded import ShardedOptimizer
from bert.train.control import Control, count_terms
from bert.train.graphs import Capture, GraphedSteps
from bert.train.half_weights import Accumulation
from bert.train.hooks import Hooks, Loader, Outcome, StepReport, TrainState
from bert.train.parallel import accumulate
from bert.train.run import Run
from bert.train.throughput import Meter, Rates, Stopwatch


class Trainer:
    """Owns the optimizer step and the loop around it."""

    def __init__(
        self,
        run: Run[Any],
        objective: nn.Module,
        optimizer: torch.optim.Optimizer | HostOptimizer | ShardedOptimizer,
        learning_rate: Callable[[int], float],
        flops: Callable[[Any], float] = lambda batch: 0.0,
        capture: Capture | None = None,
    ) -> None:
        """``learning_rate`` takes a step counted from 1, ``flops`` a micro-batch; ``capture`` records graphs."""
        self.run, self.world, self.precision = run, run.world, run.precision
        self.objective, self.optimizer, self.learning_rate = objective, optimizer, learning_rate
        self.flops, self.meter, self.stopwatch = flops, Meter(warmup_steps=4), Stopwatch(run.world.device)
        # Queueing the next step before it is known whether this one was applied keeps a GPU busy. An adaptive loss
        # scale has to know first.
        self.queues_ahead = self.world.device.type == "cuda" and not self.precision.loss_scale.dynamic
        self._release_memory = build_release(self.world.device)
        self._grad_norm: HostCopy | None = None  # of an update that was queued and not settled
        self.state, self.epoch = TrainState(), 0.0  # of the loader, after the last step applied or skipped
        computes_in_copies = not (self.precision.half_parameters or self.precision.fp8)
        dtype = self.precision.dtype if computes_in_copies else torch.float32
        self.accumulation = Accumulation(objective, dtype, self.world.device)
        self.graphs = GraphedSteps(self._micro_step, self._update, objective, optimizer, capture) if capture else None

    def train_step(
        self, micro_batches: list[Any], interrupted: Callable[[], bool], terms: dict[str, int] | None = None
    ) -> dict[str, Tensor] | None:
        """Run one optimizer step; None when interrupted, which leaves parameters and moments as they were.

        ``terms`` counts those of each loss over all ranks; None: ``micro_batches`` are the whole step. Returns this
        rank's part of each mean loss, on the device; their sum over the ranks is the loss.
        """
        self.stopwatch.start()
        scales = self._loss_scales(terms or count_terms(micro_batches))
        seed_everything(self.run.seed, self.state.iteration, self.world.rank)
        if self.precision.fp8:
            self.precision.fp8.begin_step()
        parts = {name: torch.zeros((), device=self.world.device) for name in scales}
        if self.graphs:
            self.graphs.begin(scales)
        for index, batch in enumerate(micro_batches):
            last = index == len(micro_batches) - 1
            if self.graphs:
                self.graphs.micro_step(batch, self.precision.fp8 and self.precision.fp8.observed)
            else:
                copies = self.accumulation.micro_batch(index, len(micro_batches))
                with copies, accumulate(self.objective, last, self.run.settings.parallel):
                    total = self._forward(batch.to(self.world.device), scales, parts)
                    if last:  # the backward pass waits for the other ranks
                        self.stopwatch.stop()
                    self._backward(total)
            if not last and interrupted():
                self._discard_gradients()
                return None
        if not self.graphs:
            return parts
        self.stopwatch.stop()
        return self.graphs.finish()

    def _forward(self, batch: Any, scales: dict[str, Tensor], parts: dict[str, Tensor]) -> Tensor:
        """Add the losses of a micro-batch to ``parts`` and return their sum."""
        with self.precision.autocast():
            losses = self.objective(batch)
        scaled = {name: loss * scales[name] for name, loss in losses.items()}
        for name, loss in scaled.items():
            parts[name] += loss.detach()
        return torch.stack(list(scaled.values())).sum()

    def _backward(self, total: Tensor) -> None:
        # DDP averages over ranks what has to be summed, hence the factor.
        factor = 1 if self.graphs else self.world.size
        self.precision.scale(total * factor).backward()

    def _micro_step(self, batch: Any, scales: dict[str, Tensor], parts: dict[str, Tensor]) -> None:
        """Both passes, which may be recorded: nothing in them depends on a value."""
        self._backward(self._forward(batch, scales, parts))

    def apply(self) -> tuple[bool, float]:
        """Update the parameters from the accumulated gradients: (whether they were finite, global gradient norm)."""
        self.queue_update()
        return self.settle()

    def queue_update(self) -> None:
        """Start the update that :meth:`settle` finishes, without waiting for the device."""
        rate = self.learning_rate(self.state.step + 1)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("lr_factor", 1.0)
        self._grad_norm = HostCopy(self.graphs.update() if self.graphs else self._update())
        self._discard_gradients()
        if self.precision.fp8:
            self.precision.fp8.end_step(all_reduce_max)
        self.state.iteration += 1

    def _update(self) -> Tensor:
        """Return the gradient norm, on the device."""
        clip = self.run.settings.optimizer.max_grad_norm
        return apply_gradients(self.optimizer, self.precision.loss_scale.value, clip)

    def _discard_gradients(self) -> None:
        if self.graphs:
            self.graphs.discard()
        else:
            self.optimizer.zero_grad(set_to_none=True)

    def settle(self) -> tuple[bool, float]:
        """Wait for the queued update and count it; see :meth:`apply` for what is returned."""
        assert self._grad_norm, "no update was queued"
        norm, self._grad_norm = self._grad_norm.read(), None
        finite = norm < float("inf")  # False for NaN too
        self.state.step += finite
        self.precision.update(finite, norm)
        return finite, norm

    def fit(self, loader: Loader, last_step: int, hooks: Hooks) -> Outcome:
        """Train until ``last_step`` optimizer steps were applied or any rank was asked to stop."""
        window: list[dict[str, Tensor]] = []
        queued: dict[str, Tensor] | None = None  # losses of an update that is not settled
        final_loss, interrupted, saved = float("nan"), False, self.state.iteration
        control, show = Control(self.world, loader, self.run.stop), self.run.shows_progress
        self.state.data, self.epoch = loader.state_dict(), loader.epoch
        self.meter.start()
        bar = progress(total=last_step, initial=self.state.step, description="Training", disable=not show)

        def settle(parts: dict[str, Tensor]) -> tuple[bool, float]:
            finite, norm = self.settle()
            if finite:
                window.append(parts)
                bar.update()
            return finite, norm

        with bar:
            while self.state.step < last_step:
                self.world.progress.step = self.state.step
                drawn = control.next()  # a damaged shard on one rank ends all of them
                self.stopwatch.add(drawn.seconds)
                parts = self.train_step(drawn.micro_batches, control.interrupted, drawn.terms)
                if queued is not None:
                    settle(queued)
                queued = parts
                if parts is None:
                    interrupted = True
                    break
                self.queue_update()
                self.state.data, self.epoch = drawn.position, drawn.epoch
                self._count(drawn.micro_batches)
                hooks.step()
                if self.state.iteration % RELEASE_EVERY == 0:
                    self._release_memory()
                interrupted = control.stopping()
                if self.queues_ahead and not interrupted and not hooks.due(self.state.step + 1, last_step):
                    continue
                (finite, norm), queued = settle(parts), None
                step = self.state.step
                if finite and (step % hooks.report_every == 0 or step == last_step):
                    report = self._report(window, norm, last_step)
                    final_loss = sum(report.losses.values())
                    window.clear()
                    bar.set_postfix(loss=f"{final_loss:.3f}", refresh=False)
                    hooks.report(report)
                if step == last_step or interrupted:
                    break
                if finite and hooks.evaluate_every and step % hooks.evaluate_every == 0:
                    hooks.evaluate()
                if finite and hooks.save_every and step % hooks.save_every == 0:
                    hooks.save()
                    saved = self.state.iteration
        total = self._totals()
        interrupted = control.close() or interrupted
        if self.state.iteration != saved:
            hooks.save()
        if not interrupted:
            hooks.evaluate()
        return Outcome(interrupted, self.state.step, final_loss, *total)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint needs besides the weights to continue from here."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "grad_scaler": self.precision.state_dict(),
            "training": asdict(self.state),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state`` was taken; the caller loads the weights."""
        self.load_moments(state)
        self.precision.load_state_dict(state["grad_scaler"])
        self.state = TrainState(**state["training"])

    def load_moments(self, state: dict[str, Any]) -> None:
        """Load the optimizer's state alone. Raises UsageError where another optimizer wrote it."""
        name, before = self.run.settings.optimizer.optimizer, state["flags"]["optimizer"]
        if before != name:
            raise UsageError(
                f"--optimizer {name}: the checkpoint holds the moments of {before}; "
                "keep it, or start from the weights alone with --init_checkpoint"
            )
        try:
            self.optimizer.load_state_dict(state["optimizer"])
            if self.graphs:
                self.graphs.forget_update()
        except ValueError as error:  # of torch, where the numbers of parameters or groups differ
            raise UsageError(
                f"the checkpoint has trained other parameters ({error}); expected the same flags, --freeze among them"
            ) from error

    def _loss_scales(self, terms: dict[str, int]) -> dict[str, Tensor]:
        """Return 1 / (number of terms) of each loss, on the device, without a synchronisation."""
        counts = upload(torch.tensor(list(terms.values())), self.world.device)
        # A step may hold no term of a loss (no token was masked): the sum is 0 and so is the mean.
        return dict(zip(terms, 1.0 / counts.clamp(min=1), strict=True))

    def _count(self, micro_batches: list[Any]) -> None:
        sequences, tokens = sum(b.num_sequences for b in micro_batches), sum(b.num_tokens for b in micro_batches)
        self.meter.update(sequences, tokens, sum(self.flops(b) for b in micro_batches))

    def _report(self, window: list[dict[str, Tensor]], norm: float, last_step: int) -> StepReport:
        means = {name: torch.stack([parts[name] for parts in window]).mean() for name in window[0]}
        losses = all_reduce_sum(torch.stack(list(means.values())).double())
        sequences, tokens, flops, seconds, *memory = self._gathered(self.meter.window())
        device_memory, host_memory = (int(max(peaks)) for peaks in memory)
        return StepReport(
            step=self.state.step,
            losses=dict(zip(means, losses.tolist(), strict=True)),
            learning_rate=self.optimizer.param_groups[0]["lr"],
            grad_norm=norm,
            sequences_per_second=sum(sequences),
            tokens_per_second=sum(tokens),
            flops_per_second=sum(flops),
            rank_seconds=list(seconds),
            device_memory=device_memory,
            host_memory=host_memory,
            eta=self.meter.eta(last_step - self.state.step),
        )

    def _totals(self) -> tuple[float, float, int, int, float]:
        """Return the last five numbers of an outcome."""
        total = self.meter.total()
        speed, _, flops, _, *memory = self._gathered(total)
        on_device, on_host = (int(max(peaks)) for peaks in memory)
        return sum(speed), sum(flops), on_device, on_host, total.seconds

    def _gathered(self, rates: Rates) -> list[tuple[float, ...]]:
        """Return what each rank says of itself: three rates, seconds of its own work in a step, and peaks of memory."""
        speeds = [rates.sequences_per_second, rates.tokens_per_second, rates.flops_per_second]
        own = [*speeds, self.stopwatch.mean(), *map(float, peak_memory(self.world.device))]
        return list(zip(*all_gather_floats(own), strict=True))
