# Triton is not installed everywhere, and its kernels are not Python functions: types are not checked here.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false, reportIndexIssue=false, reportArgumentType=false
# pyright: reportCallIssue=false, reportOperatorIssue=false
"""The kernels of LAMB: blocks, chunks of blocks, and three kernels that go over chunks.

Stage 1 of a chunk unscales and clips the gradient, updates both moments, forms the direction u = m̂ / (√v̂ + ε) + λp and
leaves one partial sum of p² and of u². Stage 2 adds up the partial sums of its tensor into the trust ratio, in the same
order in every program, and writes p - lr·ratio·u to the fp32 weights and, rounded, to the half-precision copy that the
model computes with. ``moments_kernel`` and ``apply_kernel`` are the stages, one chunk a program;
``persistent_kernel`` is both. Learning rate, step, clip factor and overflow flag are read from device memory.
"""

import triton
import triton.language as tl

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


@triton.jit
def _moments_chunk(
    tensors, groups, factor, u_ptr, partials, chunk, tensor,
    GRAD: tl.constexpr, ALIGNED: tl.constexpr, CHUNK: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Stage 1 of one chunk of ``tensor``: its moments, u and ``partials[chunk] = (sum of p², sum of u²)``."""
    row = tensors + tensor * TENSOR_COLUMNS
    group = groups + tl.load(row + GROUP) * GROUP_COLUMNS
    start = (chunk - tl.load(row + FIRST_CHUNK)) * CHUNK
    count = tl.minimum(tl.load(row + SIZE) - start, CHUNK)
    p_ptr = _pointer(row, P, tl.float32, ALIGNED) + start
    g_ptr = _pointer(row, G, GRAD, ALIGNED) + start
    m_ptr = _pointer(row, M, tl.float32, ALIGNED) + start
    v_ptr = _pointer(row, V, tl.float32, ALIGNED) + start
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


@triton.jit(do_not_specialize=["first"])
def moments_kernel(
    tensors, chunk_tensor, groups, factor_ptr, skipped_ptr, u_ptr, partials, first,
    GRAD: tl.constexpr, ALIGNED: tl.constexpr, CHUNK: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Stage 1 of chunk ``first`` + program."""
    if tl.load(skipped_ptr):
        return
    chunk = first + tl.program_id(0)
    u_ptr += tl.program_id(0).to(tl.int64) * CHUNK
    tensor, factor = tl.load(chunk_tensor + chunk), tl.load(factor_ptr)
    _moments_chunk(tensors, groups, factor, u_ptr, partials, chunk, tensor, GRAD, ALIGNED, CHUNK, BLOCK)


@triton.jit
def _trust_ratio(partials, chunks, BLOCK: tl.constexpr):
    """‖p‖ / ‖u‖ from the partial sums of one tensor, or 1 if either is 0."""
    p_squares = tl.zeros((BLOCK,), tl.float32)
    u_squares = tl.zeros((BLOCK,), tl.float32)
    for at in range(0, chunks, BLOCK):
        lane = at + tl.arange(0, BLOCK)
        # From the L2 cache, where the sums of other multiprocessors are.
        p_squares += tl.load(partials + 2 * lane, mask=lane < chunks, other=0.0, cache_modifier=".cg")
        u_squares += tl.load(partials + 2 * lane + 1, mask=lane < chunks, other=0.0, cache_modifier=".cg")
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


@triton.jit
def _learning_rate(tensors, groups, partials, tensor, CHUNK: tl.constexpr, BLOCK: tl.constexpr):
    """The learning rate of one tensor, times its trust ratio."""
    row = tensors + tensor * TENSOR_COLUMNS
    group = groups + tl.load(row + GROUP) * GROUP_COLUMNS
    step = tl.load(group + LR)
    if tl.load(group + ADAPTS) != 0:
        chunks = tl.cdiv(tl.load(row + SIZE), CHUNK)
        step *= _trust_ratio(partials + 2 * tl.load(row + FIRST_CHUNK), chunks, BLOCK)
    return step


@triton.jit
def _apply_chunk(
    tensors, u_ptr, chunk, tensor, step,
    COPY_TYPE: tl.constexpr, ALIGNED: tl.constexpr, CHUNK: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Stage 2 of one chunk: the new weights, and their half-precision copy unless it is fp32."""
    row = tensors + tensor * TENSOR_COLUMNS
    start = (chunk - tl.load(row + FIRST_CHUNK)) * CHUNK
    count = tl.minimum(tl.load(row + SIZE) - start, CHUNK)
    p_ptr = _pointer(row, P, tl.float32, ALIGNED) + start
    copy_ptr = _pointer(row, COPY, COPY_TYPE, ALIGNED) + start
    full = count // BLOCK * BLOCK
    for at in range(0, full, BLOCK):
        _apply_block(p_ptr, u_ptr, copy_ptr, at, BLOCK, step, COPY_TYPE, BLOCK)
    if full < count:
        _apply_block(p_ptr, u_ptr, copy_ptr, full, count - full, step, COPY_TYPE, BLOCK)


@triton.jit(do_not_specialize=["first"])
def apply_kernel(
    tensors, chunk_tensor, groups, skipped_ptr, u_ptr, partials, first,
    COPY_TYPE: tl.constexpr, ALIGNED: tl.constexpr, CHUNK: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Stage 2 of chunk ``first`` + program, counted backwards: what stage 1 wrote last is still in the cache."""
    if tl.load(skipped_ptr):
        return
    slot = tl.num_programs(0) - 1 - tl.program_id(0)
    chunk = first + slot
    tensor = tl.load(chunk_tensor + chunk)
    step = _learning_rate(tensors, groups, partials, tensor, CHUNK, BLOCK)
    u_ptr += slot.to(tl.int64) * CHUNK
    _apply_chunk(tensors, u_ptr, chunk, tensor, step, COPY_TYPE, ALIGNED, CHUNK, BLOCK)


@triton.jit
def _wait(counter, count):
    """Wait until ``count`` programs have released ``counter``; then what they stored before can be loaded."""
    seen = tl.atomic_add(counter, 0, sem="acquire")
    while seen < count:
        seen = tl.atomic_add(counter, 0, sem="acquire")
    tl.debug_barrier()


@triton.jit
def _end(tensors, tensor, CHUNK: tl.constexpr):
    """The chunk after the last one of ``tensor``."""
    row = tensors + tensor * TENSOR_COLUMNS
    return (tl.load(row + FIRST_CHUNK) + tl.cdiv(tl.load(row + SIZE), CHUNK)).to(tl.int32)


@triton.jit(do_not_specialize=["chunks", "ring"])
def persistent_kernel(
    tensors, chunk_tensor, groups, factor_ptr, skipped_ptr, u_ptr, partials, finished, chunks, ring,
    GRAD: tl.constexpr, COPY_TYPE: tl.constexpr, ALIGNED: tl.constexpr, CHUNK: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Both stages of every P-th chunk, where P programs run at once; ``finished`` [tensors] int32 starts at 0.

    A round is stage 1 of one chunk, then stage 2 of the program's own chunks of all tensors that ended before this
    round. The slowest program never waits, because it waits only for chunks of earlier rounds, which all programs have
    finished. The others rarely do: a whole round of loads lies between.
    """
    if tl.load(skipped_ptr):
        return
    programs = tl.num_programs(0)
    factor = tl.load(factor_ptr)
    chunk = tl.program_id(0)  # of stage 1
    pending = tl.program_id(0)  # the first one that awaits stage 2
    step, owner = 0.0, -1  # of the pending chunk's tensor
    while pending < chunks:
        if chunk < chunks:
            tensor = tl.load(chunk_tensor + chunk)
            u = u_ptr + (chunk % ring).to(tl.int64) * CHUNK
            _moments_chunk(tensors, groups, factor, u, partials, chunk, tensor, GRAD, ALIGNED, CHUNK, BLOCK)
            tl.debug_barrier()  # all threads have stored
            if chunk + programs >= _end(tensors, tensor, CHUNK):  # the last one of this program
                tl.atomic_add(finished + tensor, 1, sem="release")
        before = tl.minimum(chunk - tl.program_id(0), chunks)  # chunks of earlier rounds
        ready = _end(tensors, tl.load(chunk_tensor + pending), CHUNK) <= before
        while ready:
            tensor = tl.load(chunk_tensor + pending)
            if tensor != owner:
                members = tl.cdiv(tl.load(tensors + tensor * TENSOR_COLUMNS + SIZE), CHUNK).to(tl.int32)
                _wait(finished + tensor, tl.minimum(members, programs))
                step = _learning_rate(tensors, groups, partials, tensor, CHUNK, BLOCK)
                owner = tensor
            u = u_ptr + (pending % ring).to(tl.int64) * CHUNK
            _apply_chunk(tensors, u, pending, tensor, step, COPY_TYPE, ALIGNED, CHUNK, BLOCK)
            pending += programs
            ready = pending < chunks
            if ready:
                ready = _end(tensors, tl.load(chunk_tensor + pending), CHUNK) <= before
        chunk += programs
