"""Configurations of Triton, as text and as its own protobuf reads them."""

import pytest

from bert.serve.model_config import (
    NATIVE,
    ServingConfig,
    Word,
    engine_config,
    native_config,
    tensor,
    text_config,
    to_text,
)

SERVING = ServingConfig(3, 2, 4, 1024, 500, 77, 2.5)
TOKENS = {"outputs": 2, "per_token": True, "max_positions": 64}
SEQUENCES = {"outputs": 1, "per_token": False, "max_positions": 64}


def test_text():
    config = {
        "name": 'a "b"\n',
        "count": 3,
        "yes": True,
        "share": 0.5,
        "kind": Word("KIND_CPU"),
        "dims": [-1, 2],
        "none": [],
        "one": {"inner": {"deep": "x"}, "empty": {}},
        "many": [{"k": 1}, {"k": 2}],
    }
    assert to_text(config) == (
        'name: "a \\"b\\"\\n"\n'
        "count: 3\n"
        "yes: true\n"
        "share: 0.5\n"
        "kind: KIND_CPU\n"
        "dims: -1\n"
        "dims: 2\n"
        "one {\n"
        "  inner {\n"
        '    deep: "x"\n'
        "  }\n"
        "  empty {\n"
        "  }\n"
        "}\n"
        "many {\n"
        "  k: 1\n"
        "}\n"
        "many {\n"
        "  k: 2\n"
        "}\n"
    )


def test_tensors():
    assert to_text(tensor("x", "INT32", [-1], optional=True)) == (
        'name: "x"\ndata_type: TYPE_INT32\ndims: -1\noptional: true\n'
    )


@pytest.fixture
def parsed():
    """Return a function (config) -> what Triton's protobuf reads; an unknown field or word is an error."""
    text_format = pytest.importorskip("google.protobuf.text_format")
    messages = pytest.importorskip("tritonclient.grpc").model_config_pb2

    def parse(config):
        return text_format.Parse(to_text(config), messages.ModelConfig())

    return parse


def check_batching(config, delay):
    batching = config.dynamic_batching
    assert batching.max_queue_delay_microseconds == delay
    assert (batching.priority_levels, batching.default_priority_level) == (2, 2)
    policy = batching.default_queue_policy
    assert policy.timeout_action == policy.REJECT
    assert policy.default_timeout_microseconds == 2_500_000
    assert policy.allow_timeout_override and policy.max_queue_size == 77
    assert config.version_policy.latest.num_versions == 1


def test_without_a_limit_there_is_no_queue_policy(parsed):
    """Triton 2.51 lets requests rest for half a second where there is one."""
    for config in (engine_config("bert", TOKENS, ServingConfig(), True), text_config("bert_qa", "qa", ServingConfig())):
        batching = parsed(config).dynamic_batching
        assert batching.priority_levels == 0 and not batching.HasField("default_queue_policy")


def described(tensors):
    name = type(tensors[0]).DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number
    return [(each.name, name[each.data_type].name.removeprefix("TYPE_"), list(each.dims)) for each in tensors]


@pytest.mark.parametrize(("settings", "outputs"), [(TOKENS, ["output__0", "output__1"]), (SEQUENCES, ["output__0"])])
@pytest.mark.parametrize("by_tokens", [True, False])
def test_the_engine(parsed, settings, outputs, by_tokens):
    config = parsed(engine_config("bert", settings, SERVING, by_tokens))
    assert (config.name, config.backend) == ("bert", "python")
    assert config.max_batch_size == (64 if by_tokens else 8)
    assert described(config.input) == [(f"input__{k}", "INT32", [-1]) for k in range(3)]
    assert [each.allow_ragged_batch for each in config.input] == [True] * 3
    assert [each.optional for each in config.input] == [False, True, True]
    assert described(config.output) == [(name, "FP32", [-1]) for name in outputs]
    check_batching(config, delay=500)
    (group,) = config.instance_group
    assert (group.count, group.kind) == (3, group.KIND_CPU)
    assert config.parameters["threads"].string_value == "2"
    assert not config.response_cache.enable


def test_the_engine_on_a_gpu(parsed):
    config = parsed(engine_config("bert", TOKENS, ServingConfig(gpu=True), True))
    assert config.instance_group[0].kind == config.instance_group[0].KIND_GPU


ATTEMPT = ("attempt", "INT32", True)
FRONTS = {
    "qa": (
        [("question", "STRING", False), ("context", "STRING", False), ("n_best", "INT32", True), ATTEMPT],
        [("answer", "STRING"), ("start", "INT32"), ("end", "INT32"), ("probability", "FP32"), ("nbest", "STRING")],
    ),
    "classify": (
        [("text", "STRING", False), ("text_pair", "STRING", True), ATTEMPT],
        [("label", "STRING"), ("probability", "FP32"), ("scores", "STRING")],
    ),
    "embed": ([("text", "STRING", False), ATTEMPT], [("embedding", "FP32")]),
}


@pytest.mark.parametrize("task", FRONTS)
def test_a_front(parsed, task):
    config = parsed(text_config(f"bert_{task}", task, SERVING))
    inputs, outputs = FRONTS[task]
    assert described(config.input) == [(name, kind, [1]) for name, kind, _ in inputs]
    assert [each.optional for each in config.input] == [optional for *_, optional in inputs]
    assert described(config.output) == [(*each, [-1] if task == "embed" else [1]) for each in outputs]
    assert (config.backend, config.max_batch_size) == ("python", 16)
    assert config.response_cache.enable
    (group,) = config.instance_group
    assert (group.count, group.kind) == (4, group.KIND_CPU)
    check_batching(config, delay=0)


@pytest.mark.parametrize("settings", [TOKENS, SEQUENCES])
@pytest.mark.parametrize(
    ("backend", "names"),
    [
        ("onnxruntime", ("onnxruntime", "", "padded.onnx")),
        ("libtorch", ("", "pytorch_libtorch", "model.pt")),
        ("tensorrt", ("", "tensorrt_plan", "model.plan")),
    ],
)
def test_a_native_engine(parsed, backend, names, settings):
    config = parsed(native_config("bert", backend, settings, SERVING))
    assert (config.backend, config.platform, config.default_model_filename) == names
    assert config.max_batch_size == 1024 // 64
    assert described(config.input) == [(f"input__{k}", "INT32", [-1]) for k in range(2)]
    assert all(each.allow_ragged_batch for each in config.input)
    assert described(config.output) == [(f"output__{k}", "FP32", [-1]) for k in range(settings["outputs"])]
    ends, longest = config.batch_input
    assert (ends.kind, list(ends.target_name)) == (ends.BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO, ["cu_seqlens"])
    assert (longest.kind, list(longest.target_name)) == (longest.BATCH_MAX_ELEMENT_COUNT_AS_SHAPE, ["longest"])
    assert [list(each.source_input) for each in config.batch_input] == [["input__0"]] * 2
    assert [each.data_type for each in config.batch_input] == [config.input[0].data_type] * 2  # INT32
    scattered = [(each.kind, list(each.target_name), list(each.source_input)) for each in config.batch_output]
    kind = config.batch_output.add().BATCH_SCATTER_WITH_INPUT_SHAPE
    expected = [(kind, [f"output__{k}"], ["input__0"]) for k in range(2)] if settings["per_token"] else []
    assert scattered == expected
    check_batching(config, delay=500)


def test_every_native_backend_is_tested():
    assert set(NATIVE) == {"onnxruntime", "libtorch", "tensorrt"}


def test_a_native_batch_holds_a_sequence(parsed):
    settings = {**TOKENS, "max_positions": 5000}
    assert parsed(native_config("bert", "tensorrt", settings, SERVING)).max_batch_size == 1
