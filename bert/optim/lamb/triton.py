# Triton is not installed everywhere, and its kernels are not Python functions: types are not checked here.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false, reportIndexIssue=false, reportArgumentType=false
# pyright: reportCallIssue=false, reportOperatorIssue=false
"""LAMB in fused Triton kernels over all tensors of the model at once, without a host synchronisation.

Import it only where Triton is installed. Every tensor is cut into chunks of ``CHUNK`` elements, one program each. Two
kernels run per *wave*, a series of consecutive tensors:

1. ``moments_kernel``: unscale and clip the gradient, update both moments, form the direction u = m̂ / (√v̂ + ε) + λp and
   leave one partial sum of p² and of u² per chunk;
2. ``apply_kernel``: add up the partial sums of its tensor into the trust ratio and write p - lr·ratio·u to the fp32
   weights and, rounded, to the half-precision copy that the model computes with.

Learning rate, step, clip factor and overflow flag are read from device memory, so a step can be queued behind the
backward pass (or captured in a CUDA graph, with the learning rate as a tensor). Nothing is accumulated with atomics:
the result is the same bits every time.

Bytes per parameter: the gradient norm reads g (4); stage 1 reads g, m, v, p (16) and writes m, v (8); stage 2 writes p
and a bf16 copy (6). That is 34, the floor. In addition, u and p have to reach stage 2. Writing u to memory and reading
it back costs 4 + 4, recomputing it from m and v the same, and reading p 4: over the whole model 46, 1.35 times the
floor. Hence the waves: sized to the L2 cache, they let stage 2 find u and p there. For that, keeping u is better than
recomputing it: 8 bytes per parameter have to stay in the cache, not 12, so a 4096 x 1024 matrix (33 MB) fits in 50 MB;
and the next wave reuses u's buffer, so most of it is never written to memory. A tensor larger than a wave is a wave of
its own and costs the full 46.

    TritonUpdate()(groups, factor, skipped)
"""

from itertools import accumulate
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from bert.memory import upload
from bert.optim.lamb.reference import LambGroup

CHUNK = 8192  # elements per program: a wave of 4 M elements is 512 programs, four per multiprocessor of an H100
BLOCK = 1024  # elements per loop turn: at 8 warps 4 per thread, one 16-byte load, and one layout for fp32 and bf16
WARPS = 8
L2_SHARE = 0.75  # of the L2 cache for u and p; the rest takes the streams of g, m and v

# Columns of the int64 tensor table and of the float32 group table, as the kernels index them.
P, G, M, V, COPY, SIZE, GROUP, FIRST_CHUNK = (tl.constexpr(i) for i in range(8))
TENSOR_COLUMNS = tl.constexpr(8)
LR, BETA1, BETA3, BETA2, ONE_MINUS_BETA2, EPS, DECAY, ADAPTS, CORRECTION1, CORRECTION2 = (
    tl.constexpr(i) for i in range(10)
)
GROUP_COLUMNS = tl.constexpr(10)


@triton.jit
def _pointer(row, column: tl.constexpr, dtype: tl.constexpr, ALIGNED: tl.constexpr):
    pointer = tl.load(row + column).to(tl.pointer_type(dtype))
    return tl.multiple_of(pointer, 16) if ALIGNED else pointer  # aligned: 16-byte loads and stores


@triton.jit
def _moments_block(p_ptr, g_ptr, m_ptr, v_ptr, u_ptr, at, limit, factor, group, BLOCK: tl.constexpr):
    """Update ``BLOCK`` elements of the moments, write u, return p² and u²; lanes at or beyond ``limit`` are idle."""
    lane = tl.arange(0, BLOCK)
    live = lane < limit
    at += lane
    # Stage 2 needs p and u again while they are in the cache; m, v and g are not needed before they have left it.
    g = tl.load(g_ptr + at, mask=live, other=0.0, eviction_policy="evict_first").to(tl.float32) * factor
    m = tl.load(m_ptr + at, mask=live, other=0.0, eviction_policy="evict_first")
    v = tl.load(v_ptr + at, mask=live, other=0.0, eviction_policy="evict_first")
    p = tl.load(p_ptr + at, mask=live, other=0.0, eviction_policy="evict_last")
    m = tl.load(group + BETA1) * m + tl.load(group + BETA3) * g
    v = tl.load(group + BETA2) * v + tl.load(group + ONE_MINUS_BETA2) * g * g
    denominator = tl.sqrt(v / tl.load(group + CORRECTION2)) + tl.load(group + EPS)
    u = m / tl.load(group + CORRECTION1) / denominator + tl.load(group + DECAY) * p
    tl.store(m_ptr + at, m, mask=live, eviction_policy="evict_first")
    tl.store(v_ptr + at, v, mask=live, eviction_policy="evict_first")
    tl.store(u_ptr + at, u, mask=live, eviction_policy="evict_last")
    return p * p, u * u


@triton.jit(do_not_specialize=["first"])
def moments_kernel(
    tensors, chunk_tensor, groups, factor_ptr, skipped_ptr, u_ptr, partials, first,
    GRAD: tl.constexpr, ALIGNED: tl.constexpr, CHUNK: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Stage 1: chunk ``first`` + program. Writes the moments, u and ``partials[chunk] = (sum of p², sum of u²)``."""
    if tl.load(skipped_ptr):
        return
    chunk = first + tl.program_id(0)
    row = tensors + tl.load(chunk_tensor + chunk) * TENSOR_COLUMNS
    group = groups + tl.load(row + GROUP) * GROUP_COLUMNS
    start = (chunk - tl.load(row + FIRST_CHUNK)) * CHUNK
    count = tl.minimum(tl.load(row + SIZE) - start, CHUNK)
    p_ptr = _pointer(row, P, tl.float32, ALIGNED) + start
    g_ptr = _pointer(row, G, GRAD, ALIGNED) + start
    m_ptr = _pointer(row, M, tl.float32, ALIGNED) + start
    v_ptr = _pointer(row, V, tl.float32, ALIGNED) + start
    u_ptr += tl.program_id(0).to(tl.int64) * CHUNK
    factor = tl.load(factor_ptr)
    p_squares = tl.zeros((BLOCK,), tl.float32)
    u_squares = tl.zeros((BLOCK,), tl.float32)
    full = count // BLOCK * BLOCK
    for at in range(0, full, BLOCK):  # whole blocks: the limit is a constant, so loads and stores need no real mask
        p2, u2 = _moments_block(p_ptr, g_ptr, m_ptr, v_ptr, u_ptr, at, BLOCK, factor, group, BLOCK)
        p_squares += p2
        u_squares += u2
    if full < count:
        p2, u2 = _moments_block(p_ptr, g_ptr, m_ptr, v_ptr, u_ptr, full, count - full, factor, group, BLOCK)
        p_squares += p2
        u_squares += u2
    tl.store(partials + 2 * chunk, tl.sum(p_squares))
    tl.store(partials + 2 * chunk + 1, tl.sum(u_squares))


@triton.jit
def _trust_ratio(partials, chunks, BLOCK: tl.constexpr):
    """‖p‖ / ‖u‖ from the partial sums of one tensor, or 1 if either is 0."""
    p_squares = tl.zeros((BLOCK,), tl.float32)
    u_squares = tl.zeros((BLOCK,), tl.float32)
    for at in range(0, chunks, BLOCK):
        lane = at + tl.arange(0, BLOCK)
        p_squares += tl.load(partials + 2 * lane, mask=lane < chunks, other=0.0)
        u_squares += tl.load(partials + 2 * lane + 1, mask=lane < chunks, other=0.0)
    p_square, u_square = tl.sum(p_squares), tl.sum(u_squares)
    usable = (p_square > 0) & (u_square > 0)
    return tl.where(usable, tl.sqrt(p_square / tl.where(usable, u_square, 1.0)), 1.0)


@triton.jit
def _apply_block(p_ptr, u_ptr, copy_ptr, at, limit, step, COPY_TYPE: tl.constexpr, BLOCK: tl.constexpr):
    lane = tl.arange(0, BLOCK)
    live = lane < limit
    at += lane
    u = tl.load(u_ptr + at, mask=live, other=0.0, eviction_policy="evict_first")
    p = tl.load(p_ptr + at, mask=live, other=0.0, eviction_policy="evict_first") - step * u
    tl.store(p_ptr + at, p, mask=live, eviction_policy="evict_first")
    if COPY_TYPE != tl.float32:  # noqa: SIM300
        tl.store(copy_ptr + at, p.to(COPY_TYPE), mask=live)


@triton.jit(do_not_specialize=["first"])
def apply_kernel(
    tensors, chunk_tensor, groups, skipped_ptr, u_ptr, partials, first,
    COPY_TYPE: tl.constexpr, ALIGNED: tl.constexpr, CHUNK: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Stage 2: the trust ratio and the new weights of one chunk, and its half-precision copy unless it is fp32."""
    if tl.load(skipped_ptr):
        return
    # Backwards: if a wave outgrew the cache, what stage 1 wrote last is still there.
    slot = tl.num_programs(0) - 1 - tl.program_id(0)
    chunk = first + slot
    row = tensors + tl.load(chunk_tensor + chunk) * TENSOR_COLUMNS
    group = groups + tl.load(row + GROUP) * GROUP_COLUMNS
    first_chunk = tl.load(row + FIRST_CHUNK)
    size = tl.load(row + SIZE)
    step = tl.load(group + LR)
    if tl.load(group + ADAPTS) != 0:
        step *= _trust_ratio(partials + 2 * first_chunk, tl.cdiv(size, CHUNK), BLOCK)
    start = (chunk - first_chunk) * CHUNK
    count = tl.minimum(size - start, CHUNK)
    p_ptr = _pointer(row, P, tl.float32, ALIGNED) + start
    copy_ptr = _pointer(row, COPY, COPY_TYPE, ALIGNED) + start
    u_ptr += slot.to(tl.int64) * CHUNK
    full = count // BLOCK * BLOCK
    for at in range(0, full, BLOCK):
        _apply_block(p_ptr, u_ptr, copy_ptr, at, BLOCK, step, COPY_TYPE, BLOCK)
    if full < count:
        _apply_block(p_ptr, u_ptr, copy_ptr, full, count - full, step, COPY_TYPE, BLOCK)


TYPES = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}


class TritonUpdate:
    """Apply LAMB steps; keeps the tables that the kernels read on the device from step to step.

    ``wave_elements`` bounds a wave (default: from the size of the L2 cache); a huge value makes it two kernels over
    the whole model. ``chunk`` and ``block`` are for tests.
    """

    def __init__(self, wave_elements: int | None = None, chunk: int = CHUNK, block: int = BLOCK) -> None:
        self.wave_elements, self.chunk, self.block = wave_elements, chunk, block
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
                bucket.prepare(same, self.chunk, self.wave_elements or _l2_elements(factor.device))
                self._launch(bucket, dtypes, table, factor.float(), skipped)

    def _launch(self, bucket: "_Bucket", dtypes: Any, table: Tensor, factor: Tensor, skipped: Tensor) -> None:
        param, grad = (TYPES[dtype] for dtype in dtypes)
        tables, sizes = (bucket.tensors, bucket.chunk_tensor, table), (bucket.aligned, self.chunk, self.block)
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


class _Bucket:
    """The tensors of one parameter and one gradient dtype, and their tables on the device."""

    def __init__(self) -> None:
        self._shape: list[list[int]] = []
        self._rows: list[list[int]] = []
        self._first_chunks: list[int] = []
        self.waves: list[tuple[int, int]] = []  # first chunk, number of chunks
        self.chunk_tensor = self.partials = self.u = self.tensors = torch.empty(0)
        self.aligned = False

    def prepare(self, members: list[_Member], chunk: int, wave_elements: int) -> None:
        """Bring the tables up to date; nothing is uploaded if all tensors are where they were in the last step."""
        device = members[0][1][0].device
        shape = [[tensors[0].numel(), group] for group, tensors in members]
        if shape != self._shape:
            self._shape = shape
            self._cut([size for size, _ in shape], chunk, wave_elements, device)
        addresses = [[tensor.data_ptr() for tensor in tensors] for _, tensors in members]
        rows = [a + s + [first] for a, s, first in zip(addresses, shape, self._first_chunks, strict=True)]
        if rows != self._rows:
            self._rows, self.tensors = rows, upload(torch.tensor(rows), device)
            # Gradients in a DDP bucket may start at any multiple of 4 bytes.
            self.aligned = all(address % 16 == 0 for row in addresses for address in row)

    def _cut(self, sizes: list[int], chunk: int, wave_elements: int, device: torch.device) -> None:
        counts = [-(-size // chunk) for size in sizes]
        self._first_chunks = list(accumulate(counts, initial=0))[:-1]
        self.waves = []
        for first, count in zip(self._first_chunks, counts, strict=True):
            if self.waves and (self.waves[-1][1] + count) * chunk <= wave_elements:
                self.waves[-1] = (self.waves[-1][0], self.waves[-1][1] + count)
            elif count:
                self.waves.append((first, count))
        owners = torch.repeat_interleave(torch.tensor(counts)).int()
        self.chunk_tensor = upload(owners, device)
        self.partials = torch.empty(len(owners), 2, device=device)
        self.u = torch.empty(max((count for _, count in self.waves), default=0) * chunk, device=device)


def _l2_elements(device: torch.device) -> int:
    """Return how many elements of u and of p (4 + 4 bytes) fit in the L2 cache together with the streams."""
    if device.type == "cpu":  # Triton's interpreter
        return 1 << 22
    return int(torch.cuda.get_device_properties(device).L2_cache_size * L2_SHARE) // 8
