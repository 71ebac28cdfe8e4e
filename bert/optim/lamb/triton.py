# Triton is not installed everywhere, and its kernels are not Python functions: types are not checked here.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false, reportIndexIssue=false, reportArgumentType=false
# pyright: reportCallIssue=false, reportOperatorIssue=false
"""LAMB in fused Triton kernels over all tensors of the model at once, without a host synchronisation.

Import it only where Triton is installed. Every tensor is cut into chunks; :mod:`bert.optim.lamb.kernels` has the two
stages of a chunk. A step can be queued behind the backward pass (or captured in a CUDA graph, with the learning rate as
a tensor). Nothing is accumulated with atomics: the result is the same bits every time.

Bytes per parameter: the gradient norm reads g (4); stage 1 reads g, m, v, p (16) and writes m, v (8); stage 2 writes p
and a bf16 copy (6). That is 34, the floor. In addition, u and p have to reach stage 2. Writing u to memory and reading
it back costs 4 + 4, recomputing it from m and v the same, and reading p 4: over the whole model 46, 1.35 times the
floor. So stage 2 of a tensor should follow soon enough to find u and p in the L2 cache. For that, keeping u is better
than recomputing it: 8 bytes per parameter have to stay in the cache, not 12, so a 4096 x 1024 matrix (33 MB) fits in 50
MB; and u's buffer is used again and again, so most of it is never written to memory. A larger tensor costs the full 46.

Two kernels run per *wave*, a series of consecutive tensors that fits in the cache; memory idles where one ends and the
next begins. The persistent kernel avoids that: its programs all run at once and do stage 2 of a tensor one round after
its last chunk. It has not run on a GPU yet, so it has to be asked for.

    TritonUpdate()(groups, factor, skipped)
"""

from collections.abc import Callable
from itertools import accumulate
from typing import Any, NamedTuple

import torch
import triton.language as tl
from torch import Tensor

from bert.memory import upload
from bert.optim.lamb.kernels import apply_kernel, moments_kernel, persistent_kernel
from bert.optim.lamb.reference import LambGroup

CHUNK = 8192  # elements per program: a wave of 4 M elements is 512 programs, four per multiprocessor of an H100
ROUND_CHUNK = 2048  # of the persistent kernel: 528 programs have 1.1 M elements in a round
BLOCK = 1024  # elements per loop turn: at 8 warps 4 per thread, one 16-byte load, and one layout for fp32 and bf16
WARPS = 8
# Programs per multiprocessor of the persistent kernel, with and without 16-byte accesses.
RESIDENT = {True: 4, False: 2}
REGISTERS = 65536  # of a multiprocessor, of every GPU since 2014
L2_SHARE = 0.75  # of the L2 cache for u and p; the rest takes the streams of g, m and v
TYPES = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}


class TritonUpdate:
    """Apply LAMB steps; keeps the tables that the kernels read on the device from step to step.

    ``wave_elements`` bounds a wave (default: from the size of the L2 cache); a huge value makes it two kernels over
    the whole model. ``programs`` asks for the persistent kernel with that many, None for as many as run at once.
    ``chunk`` and ``block`` are for tests.
    """

    def __init__(
        self,
        wave_elements: int | None = None,
        programs: int | None = 0,
        chunk: int | None = None,
        block: int = BLOCK,
    ) -> None:
        self.wave_elements, self.programs, self.chunk, self.block = wave_elements, programs, chunk, block
        self._buckets: dict[tuple[torch.dtype, torch.dtype], _Bucket] = {}
        self._constants: list[tuple[float, ...]] = []
        self._device_constants = self._lr = torch.empty(0)

    def __call__(self, groups: list[LambGroup], factor: Tensor, skipped: Tensor) -> None:
        table = self._group_table(groups, factor.device)
        members: dict[tuple[torch.dtype, torch.dtype], list[_Member]] = {}
        for index, group in enumerate(groups):
            lists = (group.weights, group.grads, group.exp_avgs, group.exp_avg_sqs, group.params)
            for tensors in zip(*lists, strict=True):
                members.setdefault((tensors[4].dtype, tensors[1].dtype), []).append((index, tensors))
        with torch.cuda.device_of(factor):
            for dtypes, same in members.items():
                bucket = self._buckets.setdefault(dtypes, _Bucket())
                bucket.prepare(same, self._division)
                self._launch(bucket, dtypes, table, factor.float(), skipped)

    def _division(self, device: torch.device, aligned: bool) -> "Division":
        programs = _resident(device, aligned) if self.programs is None else self.programs
        chunk = self.chunk or (ROUND_CHUNK if programs else CHUNK)
        return Division(chunk, programs, (self.wave_elements or _l2_elements(device)) // chunk)

    def _launch(self, bucket: "_Bucket", dtypes: Any, table: Tensor, factor: Tensor, skipped: Tensor) -> None:
        param, grad = (TYPES[dtype] for dtype in dtypes)
        tables, sizes = (
            (bucket.tensors, bucket.chunk_tensor, table),
            (bucket.aligned, bucket.division.chunk, self.block),
        )
        if bucket.programs:
            work = (skipped, bucket.u, bucket.partials, bucket.finished.zero_(), len(bucket.chunk_tensor), bucket.ring)
            # Cooperative: an error, not a deadlock, if they could not all run at once.
            persistent_kernel[(bucket.programs,)](
                *tables, factor, *work, grad, param, *sizes,
                num_warps=WARPS, maxnreg=thread_registers(bucket.aligned), launch_cooperative_grid=True,
            )  # fmt: skip
            return
        for first, count in bucket.waves:
            work = (skipped, bucket.u, bucket.partials, first)
            moments_kernel[(count,)](*tables, factor, *work, grad, *sizes, num_warps=WARPS)
            apply_kernel[(count,)](*tables, *work, param, *sizes, num_warps=WARPS)

    def _group_table(self, groups: list[LambGroup], device: torch.device) -> Tensor:
        """Return float32 ``[groups, 10]`` on the device, from float64: in fp32 1 - 0.999 keeps only 5 digits."""
        constants = [
            (*o.betas, o.beta3, o.eps, o.weight_decay, float(o.adapts), float(o.bias_correction))
            for o in (group.options for group in groups)
        ]
        if constants != self._constants or self._lr.device != device:
            self._constants, self._lr = constants, torch.empty(len(groups), dtype=torch.float64, device=device)
            self._device_constants = upload(torch.tensor(constants, dtype=torch.float64).T.contiguous(), device)
        beta1, beta2, beta3, eps, decay, adapts, corrects = self._device_constants.unbind()
        for slot, group in zip(self._lr, groups, strict=True):
            slot.fill_(group.options.lr)  # a number travels with the launch, a tensor is read on the device
        step = torch.stack([group.step for group in groups])
        corrections = (1 - corrects * beta1**step, 1 - corrects * beta2**step)
        return torch.stack([self._lr, beta1, beta3, beta2, 1 - beta2, eps, decay, adapts, *corrections], dim=1).float()


_Member = tuple[int, tuple[Tensor, ...]]  # index of the group; weight, gradient, both moments, parameter


class Division(NamedTuple):
    """How the tensors of a bucket are divided."""

    chunk: int  # elements
    programs: int  # of the persistent kernel, 0 for waves
    wave_chunks: int  # of a wave at most


class _Bucket:
    """The tensors of one parameter and one gradient dtype, and their tables on the device."""

    def __init__(self) -> None:
        self.division = Division(0, 0, 0)
        self._shape: list[list[int]] = []
        self._rows: list[list[int]] = []
        self._first_chunks: list[int] = []
        self.waves: list[tuple[int, int]] = []  # first chunk, number of chunks
        self.chunk_tensor = self.partials = self.u = self.tensors = self.finished = torch.empty(0)
        self.programs = self.ring = 0  # of the persistent kernel: programs, chunks that u has room for
        self.aligned = False

    def prepare(self, members: list[_Member], division: Callable[[torch.device, bool], Division]) -> None:
        """Bring the tables up to date; nothing is uploaded if all tensors are where they were in the last step."""
        device = members[0][1][0].device
        addresses = [[tensor.data_ptr() for tensor in tensors] for _, tensors in members]
        # Gradients in a DDP bucket may start at any multiple of 4 bytes.
        self.aligned = all(address % 16 == 0 for row in addresses for address in row)
        shape, divided = [[tensors[0].numel(), group] for group, tensors in members], division(device, self.aligned)
        if (shape, divided) != (self._shape, self.division):
            self._shape, self.division = shape, divided
            self._cut([-(-size // divided.chunk) for size, _ in shape], device)
        rows = [a + s + [first] for a, s, first in zip(addresses, shape, self._first_chunks, strict=True)]
        if rows != self._rows:
            self._rows, self.tensors = rows, upload(torch.tensor(rows), device)

    def _cut(self, counts: list[int], device: torch.device) -> None:
        """Lay out tensors of ``counts`` chunks each."""
        self._first_chunks = list(accumulate(counts, initial=0))[:-1]
        self.waves = _waves(counts, self.division.wave_chunks)
        owners = torch.repeat_interleave(torch.tensor(counts)).int()
        self.chunk_tensor = upload(owners, device)
        self.partials = torch.empty(len(owners), 2, device=device)
        self.finished = torch.empty(len(counts), dtype=torch.int32, device=device)
        self.programs = min(self.division.programs, len(owners))
        self.ring = _ring(max(counts, default=0), self.programs)
        kept = self.ring or max((count for _, count in self.waves), default=0)
        self.u = torch.empty(kept * self.division.chunk, device=device)


def _ring(largest: int, programs: int) -> int:
    """Return the chunks that await stage 2 at most, as a multiple of ``programs``, so that each has its own slots.

    They are those of the largest tensor, the round in which it ended and the current one.
    """
    return (-(-largest // programs) + 2) * programs if programs else 0


def _waves(counts: list[int], limit: int) -> list[tuple[int, int]]:
    """Return (first chunk, chunks) of series of tensors, none above ``limit`` chunks unless it is one tensor."""
    waves: list[tuple[int, int]] = []
    for first, count in zip(accumulate(counts, initial=0), counts, strict=False):
        if waves and waves[-1][1] + count <= limit:
            waves[-1] = (waves[-1][0], waves[-1][1] + count)
        elif count:
            waves.append((first, count))
    return waves


def thread_registers(aligned: bool) -> int:
    """Return how many registers a thread may have for ``RESIDENT`` programs to fit."""
    return REGISTERS // (RESIDENT[aligned] * WARPS * 32)


def _resident(device: torch.device, aligned: bool) -> int:
    """Return how many programs of the persistent kernel run at once."""
    return torch.cuda.get_device_properties(device).multi_processor_count * RESIDENT[aligned]


def _l2_elements(device: torch.device) -> int:
    """Return how many elements of u and of p (4 + 4 bytes) fit in the L2 cache together with the streams."""
    if device.type == "cpu":  # Triton's interpreter
        return 1 << 22
    return int(torch.cuda.get_device_properties(device).L2_cache_size * L2_SHARE) // 8
