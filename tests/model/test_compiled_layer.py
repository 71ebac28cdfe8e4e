"""A compiled layer as it would run on a GPU: our kernels stand in its graphs, launched by generated code."""

import pytest
import torch
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.aot_autograd import make_boxed_func

import bert  # noqa: F401  # hides the repository's own triton/ folder
from bert.model import layers
from bert.model.attention import build_layout
from bert.model.config import BertConfig
from bert.model.layers import BertLayer

KERNEL = "triton_kernel_wrapper_functional"


class WithoutKernels(torch.fx.Interpreter):
    """Runs a graph, but its kernels return what was in memory."""

    def call_function(self, target, args, kwargs):
        if str(target) == KERNEL:
            return {name: kwargs["kwargs"][name].clone() for name in kwargs["tensors_to_clone"]}
        return super().call_function(target, args, kwargs)


@pytest.fixture
def gpu_to_compile_for(monkeypatch):
    """Dynamo takes kernels as such, and Triton compiles them, only where there is a GPU."""
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver

    class Hopper:
        def get_current_target(self):
            return GPUTarget("cuda", 90, 32)

    from bert.model.kernels import fused

    monkeypatch.setattr("torch.utils._triton.has_triton", lambda: True)
    monkeypatch.setattr(layers, "_kernels", lambda _: fused)
    monkeypatch.setattr(driver, "_active", Hopper())
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.triton
@pytest.mark.slow
def test_a_compiled_layer_holds_the_kernels(gpu_to_compile_for):
    """Forward: attention, two normalisations, the activation. Backward: the same; few long sequences take one more.

    ``fullgraph`` forbids graph breaks; the second batch does not compile again.
    """
    graphs = []

    def keep(graph, _):
        graphs.append([str(node.target) for node in graph.graph.nodes if node.op == "call_function"])
        return make_boxed_func(WithoutKernels(graph).run)

    layer = BertLayer(BertConfig(100, 32, 1, 2, 64)).bfloat16()
    layer.compile(backend=aot_autograd(fw_compiler=keep, bw_compiler=keep), dynamic=True, fullgraph=True)
    for each in ([70, 60, 50], [90, 128], [200, 40]):
        layout = build_layout(torch.tensor([0, *each]).cumsum(0).int(), max(each), sum(each), "fused")
        hidden = torch.randn(sum(each), 32, dtype=torch.bfloat16, requires_grad=True)
        layer(hidden, layout).sum().backward()
    assert [graph.count(KERNEL) for graph in graphs] == [4, 4, 4, 5]
    assert not any("bert" in target or "scatter" in target for graph in graphs for target in graph)
