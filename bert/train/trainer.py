"""The training loop. It knows no task: an objective returns summed losses, a batch says how many terms they have.

Invariant: one optimizer step is a pure function of (parameters, moments, iteration, seed, the global batch). The loss
is divided by the number of terms in the whole step, over all micro-batches of all ranks, and dropout is seeded by
(seed, iteration, rank), so a resumed run simply repeats a step that was cut off::

    trainer = Trainer(run, objective, optimizer, learning_rate)
    outcome = trainer.fit(loader, last_step=7038, hooks=Hooks(report=..., evaluate=..., save=...))
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from bert.distributed import agree_any, all_reduce_max, all_reduce_sum, collective_errors, seed_everything
from bert.errors import UsageError
from bert.log import progress
from bert.memory import RELEASE_EVERY, HostCopy, build_release, upload
from bert.optim.build import apply_gradients
from bert.optim.host import HostOptimizer
from bert.train.graphs import Capture, GraphedSteps
from bert.train.half_weights import Accumulation
from bert.train.hooks import Hooks, Loader, Outcome, StepReport, TrainState
from bert.train.parallel import accumulate
from bert.train.run import Run
from bert.train.throughput import Meter


class Trainer:
    """Owns the optimizer step and the loop around it."""

    def __init__(
        self,
        run: Run[Any],
        objective: nn.Module,
        optimizer: torch.optim.Optimizer | HostOptimizer,
        learning_rate: Callable[[int], float],
        flops: Callable[[Any], float] = lambda batch: 0.0,
        capture: Capture | None = None,
    ) -> None:
        """``learning_rate`` takes a step counted from 1, ``flops`` a micro-batch; ``capture`` records graphs."""
        self.run, self.world, self.precision = run, run.world, run.precision
        self.objective, self.optimizer, self.learning_rate = objective, optimizer, learning_rate
        self.flops, self.meter = flops, Meter(warmup_steps=4)
        # Queueing the next step before it is known whether this one was applied keeps a GPU busy. An adaptive loss
        # scale has to know first.
        self.queues_ahead = self.world.device.type == "cuda" and not self.precision.loss_scale.dynamic
        self._release_memory = build_release(self.world.device)
        self._grad_norm: HostCopy | None = None  # of an update that was queued and not settled
        self.state = TrainState()
        computes_in_copies = not (self.precision.half_parameters or self.precision.fp8)
        dtype = self.precision.dtype if computes_in_copies else torch.float32
        self.accumulation = Accumulation(objective, dtype, self.world.device)
        self.graphs = GraphedSteps(self._micro_step, self._update, objective, optimizer, capture) if capture else None

    def train_step(self, micro_batches: list[Any], interrupted: Callable[[], bool]) -> dict[str, Tensor] | None:
        """Run one optimizer step; None when interrupted, which leaves parameters and moments as they were.

        Returns this rank's part of each mean loss, on the device; their sum over the ranks is the loss.
        """
        scales = self._loss_scales(micro_batches)
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
                    self._backward(self._forward(batch.to(self.world.device), scales, parts))
            if not last and agree_any(interrupted()):
                self._discard_gradients()
                return None
        return self.graphs.finish() if self.graphs else parts

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
        stop, show = self.run.stop, self.run.shows_progress
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
                with collective_errors(self.world):  # a damaged shard on one rank ends all of them
                    micro_batches = next(loader)
                parts = self.train_step(micro_batches, lambda: stop.requested)
                if queued is not None:
                    settle(queued)
                queued = parts
                if parts is None:
                    interrupted = True
                    break
                self.queue_update()
                self.state.data = loader.state_dict()
                self._count(micro_batches)
                hooks.step()
                if self.state.iteration % RELEASE_EVERY == 0:
                    self._release_memory()
                interrupted = agree_any(stop.requested)
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
        total = self.meter.total()
        if self.state.iteration != saved:
            hooks.save()
        if not interrupted:
            hooks.evaluate()
        (speed,) = self._summed([total.sequences_per_second])
        return Outcome(interrupted, self.state.step, final_loss, speed, total.seconds)

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

    def _loss_scales(self, micro_batches: Iterable[Any]) -> dict[str, Tensor]:
        """1 / (number of terms of each loss in the whole optimizer step), on the device, without a synchronisation."""
        weights: dict[str, int] = {}
        for batch in micro_batches:
            for name, weight in batch.loss_weights().items():
                weights[name] = weights.get(name, 0) + weight
        counts = all_reduce_sum(upload(torch.tensor(list(weights.values())), self.world.device))
        # A step may hold no term of a loss (no token was masked): the sum is 0 and so is the mean.
        return dict(zip(weights, 1.0 / counts.clamp(min=1), strict=True))

    def _count(self, micro_batches: list[Any]) -> None:
        sequences, tokens = sum(b.num_sequences for b in micro_batches), sum(b.num_tokens for b in micro_batches)
        self.meter.update(sequences, tokens, sum(self.flops(b) for b in micro_batches))

    def _report(self, window: list[dict[str, Tensor]], norm: float, last_step: int) -> StepReport:
        means = {name: torch.stack([parts[name] for parts in window]).mean() for name in window[0]}
        losses = all_reduce_sum(torch.stack(list(means.values())).double())
        rates = self.meter.window()
        speeds = self._summed([rates.sequences_per_second, rates.tokens_per_second, rates.flops_per_second])
        return StepReport(
            step=self.state.step,
            losses=dict(zip(means, losses.tolist(), strict=True)),
            learning_rate=self.optimizer.param_groups[0]["lr"],
            grad_norm=norm,
            sequences_per_second=speeds[0],
            tokens_per_second=speeds[1],
            flops_per_second=speeds[2],
            eta=self.meter.eta(last_step - self.state.step),
        )

    def _summed(self, values: list[float]) -> list[float]:
        return all_reduce_sum(torch.tensor(values, device=self.world.device, dtype=torch.float64)).tolist()
