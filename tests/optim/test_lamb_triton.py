"""The Triton kernels against the reference: interpreted on the CPU, compiled for GPUs, run on one if there is one.

``TRITON_INTERPRET`` counts only before Triton is imported, so the interpreted cases run in a child process: this file.
"""

import functools
import inspect
import json
import os
import random
import threading

import pytest
import torch

import bert  # noqa: F401  # hides the repository's own triton/ folder
from bert.optim.lamb import Lamb

# Chunks of 64 elements, blocks of 32, waves of 150: (20, 13) is larger than a wave, others share one, most end in
# mid-block. (8, 8) is one full chunk.
SIZES = {"wave_elements": 150, "chunk": 64, "block": 32}
SHAPES = [(20, 13), (29,), (8, 8), (1,)]
CASES = {
    "plain": {},
    "bfloat16": {"dtype": torch.bfloat16},
    "float16": {"dtype": torch.float16},
    "mixed dtypes": {"dtype": torch.float16, "mixed": True},
    "nvlamb": {"use_nvlamb": True},
    "no bias correction": {"bias_correction": False},
    "no averaging": {"grad_averaging": False},
    "no clipping": {"max_grad_norm": None},
    "unaligned gradients": {"unaligned": True},
    "overflow": {"overflow_at": 1},
    "missing gradients": {"missing_at": 1},
    "tensor as learning rate": {"tensor_lr": True},
}


def run(implementation, device="cpu", steps=3, shapes=SHAPES, dtype=torch.float32, **case):
    """Train ``steps`` steps on fixed random gradients; return (optimizer, parameters)."""
    options = {k: case[k] for k in ("use_nvlamb", "bias_correction", "grad_averaging", "max_grad_norm") if k in case}
    generator = torch.Generator().manual_seed(0)
    params = []
    for index, shape in enumerate(shapes):
        kind = torch.float32 if case.get("mixed") and index % 2 else dtype
        params.append(torch.nn.Parameter((torch.randn(shape, generator=generator) * 0.1).to(device, kind)))
    groups = [
        {"params": [p for p in params if p.dim() > 1]},
        {"params": [p for p in params if p.dim() == 1], "weight_decay": 0.0},
    ]
    lr = torch.tensor(0.01, device=device) if case.get("tensor_lr") else 0.01
    optimizer = Lamb(groups, lr=lr, implementation=implementation, **options)
    for step in range(steps):
        for p in params:
            flat = torch.randn(p.numel() + 1, generator=generator).to(device, p.dtype)
            p.grad = (flat[1:] if case.get("unaligned") else flat[1:].clone()).view(p.shape)
        if case.get("overflow_at") == step:
            params[0].grad[3, 3] = torch.inf
        if case.get("missing_at") == step:
            params[2].grad = None
        optimizer.step(grad_scale=torch.tensor(8.0, device=device))
    return optimizer, params


def difference(expected, actual):
    """Largest relative difference of weights and moments, and whether the half copies are the rounded weights."""
    worst, exact = 0.0, True
    for p, q in zip(expected[1], actual[1], strict=True):
        states = expected[0].state[p], actual[0].state[q]
        weights = [s.get("master", x.detach()) for s, x in zip(states, (p, q), strict=True)]
        pairs = [weights] + [[s[key] for s in states] for key in ("exp_avg", "exp_avg_sq")]
        for a, b in pairs:
            worst = max(worst, float((a.cpu() - b.cpu()).abs().max() / a.abs().max().cpu()))
        exact = exact and torch.equal(q.detach(), rounded(weights[1], q.dtype))
    same_steps = [int(g["step"]) for g in expected[0].param_groups] == [int(g["step"]) for g in actual[0].param_groups]
    return {"worst": worst, "exact": exact, "same_steps": same_steps, "skipped": bool(actual[0].skipped)}


def rounded(weight, dtype):
    """Round as the kernel does: to nearest, but Triton's interpreter cuts off what bfloat16 cannot hold."""
    if dtype == torch.bfloat16 and os.environ.get("TRITON_INTERPRET"):
        weight = (weight.view(torch.int32) >> 16 << 16).view(torch.float32)
    return weight.to(dtype)


PERSISTENT = ["mixed dtypes", "missing gradients"]
MANY_SHAPES = [(29,), (5,), (20, 13), (64,), (8, 8), (1,), (7, 40), (3, 3), (33,)]


class Interleaved:
    """Runs the programs of one interpreted launch at once: threads, of which one at a time has the baton.

    They take turns at random, whenever a program looks where a tensor ends, and where it waits for others.
    """

    def __init__(self):
        from triton.runtime.interpreter import interpreter_builder

        from bert.optim.lamb import kernels

        self.random, self.builder = random.Random(0), interpreter_builder
        kernel = kernels.persistent_kernel
        self.program = kernel.rewrite()
        launch = functools.wraps(self.program)(lambda **arguments: self.launch(arguments))
        launch.__signature__ = inspect.signature(self.program)
        kernel.rewritten_fn[kernel.fn] = launch
        end = kernels._end
        kernels._end = lambda *arguments: (self.pause(), end(*arguments))[1]
        kernels._wait = self.wait

    def launch(self, arguments):
        if self.builder.grid_idx[0] > 0:
            return  # all run with the first
        programs = range(self.builder.grid_dim[0])
        self.batons, self.back, self.errors = [threading.Semaphore(0) for _ in programs], threading.Semaphore(0), []
        live = set(programs)

        def run(index):
            self.batons[index].acquire()
            try:
                self.program(**arguments)
            except BaseException as error:
                self.errors.append(error)
            live.remove(index)
            self.back.release()

        for index in programs:
            threading.Thread(target=run, args=(index,), daemon=True).start()
        for _ in range(10_000):  # far more turns than they need
            if not live:
                break
            self.current = self.random.choice(sorted(live))
            self.builder.set_grid_idx(self.current, 0, 0)
            self.batons[self.current].release()
            self.back.acquire()
        self.builder.set_grid_idx(0, 0, 0)
        assert not live and not self.errors, (live, self.errors)

    def pause(self):
        index = self.current
        if self.random.random() < 0.5:
            self.back.release()
            self.batons[index].acquire()

    def wait(self, counter, count):
        while tl.load(counter) < count:
            self.pause()


def weights_and_moments(result):
    optimizer, params = result
    return [x for p in params for x in (p.detach(), *optimizer.state[p].values()) if torch.is_tensor(x)]


def child():
    global tl  # the interpreter replaces the functions of this module that it finds here
    import triton.language as tl

    from bert.optim.lamb.triton import TritonUpdate

    results = {
        name: difference(run("reference", **case), run(TritonUpdate(**SIZES), **case)) for name, case in CASES.items()
    }
    one_step, then_overflow = (run(TritonUpdate(**SIZES), steps=n, overflow_at=1) for n in (1, 2))
    results["overflow changes nothing"] = difference(one_step, then_overflow)
    runs = [run(TritonUpdate(**SIZES), steps=2, shapes=MANY_SHAPES)]
    Interleaved()
    for programs in (1, 3, 5):
        update = TritonUpdate(programs=programs, chunk=64, block=32)
        runs.append(run(update, steps=2, shapes=MANY_SHAPES))
    bits = [weights_and_moments(result) for result in runs]
    results["same bits"] = all(all(map(torch.equal, bits[0], other)) for other in bits[1:])
    for name in PERSISTENT:
        update = TritonUpdate(programs=3, chunk=64, block=32)
        results[f"persistent, {name}"] = difference(run("reference", **CASES[name]), run(update, **CASES[name]))
    print(json.dumps(results))


@pytest.mark.slow
@pytest.mark.triton
@pytest.mark.parametrize("name", [*CASES, *(f"persistent, {name}" for name in PERSISTENT)])
def test_interpreted_kernels_equal_the_reference(interpreted, name):
    result = interpreted[name]
    assert result["worst"] <= 1e-6 and result["exact"] and result["same_steps"], result


@pytest.mark.slow
@pytest.mark.triton
def test_one_kernel_gives_the_bits_of_two_whatever_its_programs_wait_for(interpreted):
    assert interpreted["same bits"]


@pytest.mark.slow
@pytest.mark.triton
def test_interpreted_overflow_changes_nothing(interpreted):
    result = interpreted["overflow changes nothing"]
    assert result == {"worst": 0.0, "exact": True, "same_steps": True, "skipped": True}


@pytest.mark.triton
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_kernels_compile_to_16_byte_accesses(capability, dtype):
    """Needs no GPU. Without the alignment hint every access would be 4 bytes, and half the bandwidth would be lost."""
    from bert.optim.lamb import kernels

    moments = compiled(kernels.moments_kernel, capability, GRAD=dtype).asm["ptx"]
    apply = compiled(kernels.apply_kernel, capability, COPY_TYPE=dtype).asm["ptx"]
    g_load = 0 if dtype == "bf16" else 1  # four bf16 gradients are 8 bytes
    assert count_wide(moments, "ld") == 3 + g_load and count_wide(moments, "st") == 3  # p, m, v (, g); m, v, u
    assert count_wide(apply, "ld") == 2 and count_wide(apply, "st") == 1  # p, u; p
    assert ("cvt.rn.bf16" in apply) == (dtype == "bf16")  # the copy is rounded to nearest


@pytest.mark.triton
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_the_programs_of_the_persistent_kernel_run_at_once(dtype, aligned):
    """A multiprocessor has 65536 registers; one program without a place would let the others wait for ever."""
    from compiled_kernels import resources

    from bert.optim.lamb import kernels, triton

    limit = {"maxnreg": triton.thread_registers(aligned)}
    kernel = compiled(kernels.persistent_kernel, 90, limit, GRAD=dtype, COPY_TYPE=dtype, ALIGNED=aligned)
    used = resources(kernel)
    assert used["REG"] * triton.WARPS * 32 * triton.RESIDENT[aligned] <= 65536
    assert used["STACK"] <= 32  # bytes: the limit costs no more than a few accesses
    order = ("red.global.gpu.release", "ld.global.gpu.acquire", "ld.global.cg")  # the last one: partial sums, past L1
    assert all(each in kernel.asm["ptx"] for each in order)


def compiled(kernel, capability, options=None, ALIGNED=True, **types):
    import triton.language as tl
    from compiled_kernels import compile_kernel

    from bert.optim.lamb.triton import BLOCK, CHUNK, WARPS

    signature = {"tensors": "*i64", "chunk_tensor": "*i32", "skipped_ptr": "*i1", "finished": "*i32"}
    signature |= dict.fromkeys(("first", "chunks", "ring"), "i32")
    constants = {name: {"fp32": tl.float32, "bf16": tl.bfloat16}[value] for name, value in types.items()}
    constants |= {"ALIGNED": ALIGNED, "CHUNK": CHUNK, "BLOCK": BLOCK}
    return compile_kernel(kernel, capability, signature, constants, WARPS, **options or {})


def count_wide(ptx, operation):
    return sum(f"{operation}.global" in line and ".v4.b32" in line for line in ptx.splitlines())


HOW = {
    "persistent": {"programs": None},
    "L2": {},
    "1 M": {"wave_elements": 1 << 20},
    "one wave": {"wave_elements": 1 << 40},
}
BERT_LIKE = [(3000, 512), (512,), (512, 512), (2048, 512), (2048,), (7,), (2, 512)]


@pytest.mark.triton
@pytest.mark.gpu
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("how", HOW)
def test_kernels_equal_foreach_on_a_gpu(name, how):
    from bert.optim.lamb.triton import TritonUpdate

    case = CASES[name] | {"device": "cuda", "shapes": BERT_LIKE}
    result = difference(run("foreach", **case), run(TritonUpdate(**HOW[how]), **case))
    assert result["worst"] <= 2e-6 and result["exact"] and result["same_steps"], result


@pytest.mark.triton
@pytest.mark.gpu
def test_the_persistent_kernel_gives_the_same_bits_every_time_on_a_gpu():
    from bert.optim.lamb.triton import ROUND_CHUNK, TritonUpdate

    shapes = BERT_LIKE * 20
    first, *others = (
        weights_and_moments(run(TritonUpdate(**how), device="cuda", shapes=shapes))
        for how in (
            {"programs": None},
            {"programs": None},
            {"programs": 37},
            {"wave_elements": 1 << 20, "chunk": ROUND_CHUNK},
        )
    )
    assert all(all(map(torch.equal, first, other)) for other in others)


@pytest.mark.triton
@pytest.mark.gpu
def test_a_step_never_waits_for_the_gpu():
    optimizer, _ = run("auto", device="cuda", shapes=BERT_LIKE, steps=2)
    scale = torch.tensor(8.0, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        optimizer.param_groups[0]["lr"] = 0.005
        optimizer.step(grad_scale=scale)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert not optimizer.skipped and all(group["step"] == 3 for group in optimizer.param_groups)


@pytest.mark.triton
@pytest.mark.gpu
def test_a_step_can_be_captured_in_a_cuda_graph():
    expected = run("foreach", device="cuda", shapes=BERT_LIKE, tensor_lr=True, steps=1)
    actual = run("triton", device="cuda", shapes=BERT_LIKE, tensor_lr=True, steps=1)
    scale, graph = torch.tensor(8.0, device="cuda"), torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        actual[0].step(grad_scale=scale)
    for lr in (0.01, 0.02):
        for optimizer, _ in (expected, actual):
            optimizer.param_groups[0]["lr"].fill_(lr)  # both groups hold this tensor
        expected[0].step(grad_scale=scale)
        graph.replay()
    assert difference(expected, actual)["worst"] <= 2e-6


if __name__ == "__main__":
    child()
