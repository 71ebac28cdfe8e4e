"""When a run is compiled, and what is said about it."""

import pytest
import torch

from bert.distributed import World
from bert.errors import UsageError
from bert.train.parallel import ParallelConfig, check_compression, missing_compiler, resolve_compile

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    "config,flops,compiler,expected,said",
    [
        (ParallelConfig(compile="off"), 1e18, True, False, ""),
        (ParallelConfig(compile="on", disable_jit_fusions=True), 1e18, True, False, ""),
        (ParallelConfig(compile="auto"), 5e13, True, False, ""),  # 500 s of eager work on a CPU: not worth it
        (ParallelConfig(compile="auto"), 7e13, True, True, "compiling the model"),  # 700 s
        (ParallelConfig(compile="on"), 0.0, True, True, "compiling the model"),
        (ParallelConfig(compile="on"), 1e18, False, False, "no C++ compiler"),
        (ParallelConfig(compile="auto"), 1e18, False, False, ""),
    ],
)
def test_compile_where_it_pays_and_can(monkeypatch, tmp_path, config, flops, compiler, expected, said):
    tool = tmp_path / "c++"
    if compiler:
        tool.touch(mode=0o755)
    monkeypatch.setenv("CXX", str(tool))
    assert (missing_compiler(CPU) is None) == compiler
    notices: list[str] = []
    assert resolve_compile(config, CPU, flops, notices.append) is expected
    assert notices == [] if not said else said in notices[0]


def test_compressed_gradients_need_gpus_and_gradients_to_compress():
    """PyTorch's hook does not run on a CPU."""
    config, two = ParallelConfig(compress_gradients="bf16"), World(0, 0, 2, CPU)
    check_compression(config, World(0, 0, 1, CPU), False)
    check_compression(config, World(0, 0, 2, torch.device("cuda", 0)), False)
    with pytest.raises(UsageError, match="--compress_gradients bf16: expected GPUs, found --device cpu"):
        check_compression(config, two, False)
    with pytest.raises(UsageError, match="without --allreduce_post_accumulation_fp16"):
        check_compression(config, two, True)
