"""The ``config.pbtxt`` of each model, as plain values, and their text form (protobuf's text format).

    to_text({"name": "bert", "max_batch_size": 8, "input": [{"name": "input__0", "data_type": Word("TYPE_INT32")}]})

``native_config`` describes the same engine for the backends of NVIDIA's container (ONNX Runtime, LibTorch, TensorRT)
with ragged inputs, the way NVIDIA's MLPerf harness serves BERT. It is parsed in a test; no GPU server has run it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from bert.config import flag

Config = dict[str, Any]


class Word(str):
    """A value that is written without quotes: an enumerator."""


@dataclass
class ServingConfig:
    """How Triton runs the models."""

    instances: int = flag(1, "Copies of the engine, each a process of its own.", minimum=1)
    threads: int = flag(
        1, "Threads of each copy. Copies of one thread give the most, one of many answers soonest.", minimum=1
    )
    text_instances: int = flag(1, "Copies of the model that reads text, each a process of its own.", minimum=1)
    batch_tokens: int = flag(512, "Most tokens in a batch of the engine.", minimum=1)
    queue_delay: int = flag(0, "Microseconds that the engine waits for more requests to a batch.", minimum=0)
    queue_size: int = flag(0, "Requests that may wait for a model; more are refused. 0 = any number.", minimum=0)
    queue_timeout: float = flag(0.0, "Seconds that a request may wait. 0 = any time.", minimum=0)
    gpu: bool = flag(False, "Run the engine on a GPU.")


def to_text(config: Config, indent: str = "") -> str:
    """Write ``config`` in protobuf's text format."""
    lines = []
    for key, value in config.items():
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, dict):
                lines.append(f"{indent}{key} {{\n{to_text(each, indent + '  ')}{indent}}}\n")
            else:
                lines.append(f"{indent}{key}: {_scalar(each)}\n")
    return "".join(lines)


def _scalar(value: Any) -> str:
    return str(value) if isinstance(value, Word) else json.dumps(value)


def tensor(name: str, kind: str, dims: list[int], **more: Any) -> Config:
    """An input or output."""
    return {"name": name, "data_type": Word(f"TYPE_{kind}"), "dims": dims, **more}


def _batching(serving: ServingConfig, delay: int = 0) -> Config:
    """Requests of any client share batches.

    With a queue policy or priorities Triton 2.51 lets waiting requests rest for up to half a second, so there is none
    unless it is asked for; the gateway limits requests and their time.
    """
    batching: Config = {"max_queue_delay_microseconds": delay}
    if serving.queue_size or serving.queue_timeout:
        policy = {"timeout_action": Word("REJECT"), "allow_timeout_override": True}
        policy["default_timeout_microseconds"] = int(serving.queue_timeout * 1e6)
        policy["max_queue_size"] = serving.queue_size
        batching |= {"default_queue_policy": policy, "priority_levels": 2, "default_priority_level": 2}
    return batching


def _engine_inputs(**more: Any) -> list[Config]:
    names = ("input__0", "input__1", "input__2")  # ids, segment ids, mask
    optional = ({}, {"optional": True}, {"optional": True})
    return [tensor(name, "INT32", [-1], **more, **each) for name, each in zip(names, optional, strict=True)]


def engine_config(name: str, settings: Config, serving: ServingConfig, by_tokens: bool) -> Config:
    """The engine on token ids. Without the library that counts tokens a batch is a few requests."""
    dims = [-1]  # tokens, labels or vector
    multitask = settings.get("task") == "multitask"
    task, facts = tensor("task", "STRING", [1], optional=True), tensor("facts", "STRING", [1])  # JSON: labels, or tasks
    return {
        "name": name,
        "backend": "python",
        "max_batch_size": 64 if by_tokens else 8,
        "input": [*_engine_inputs(allow_ragged_batch=True), *([task] if multitask else [])],
        "output": [
            *(tensor(f"output__{k}", "FP32", dims) for k in range(settings["outputs"])),
            *([facts] if multitask else []),
        ],
        "dynamic_batching": _batching(serving, serving.queue_delay),
        "instance_group": [{"count": serving.instances, "kind": Word("KIND_GPU" if serving.gpu else "KIND_CPU")}],
        "parameters": [{"key": "threads", "value": {"string_value": str(serving.threads)}}],
        "version_policy": {"latest": {"num_versions": 1}},
    }


# A number that only makes a request different from others, for which the cache may hold an answer.
ATTEMPT = tensor("attempt", "INT32", [1], optional=True)
TEXT_INPUTS = {
    "qa": [
        tensor("question", "STRING", [1]),
        tensor("context", "STRING", [1]),
        tensor("n_best", "INT32", [1], optional=True),
        ATTEMPT,
    ],
    "classify": [tensor("text", "STRING", [1]), tensor("text_pair", "STRING", [1], optional=True), ATTEMPT],
    "embed": [tensor("text", "STRING", [1]), ATTEMPT],
    "multitask": [
        tensor("task", "STRING", [1], optional=True),  # without it the reply lists the tasks
        tensor("text", "STRING", [1]),
        # Empty = none: requests with and without an input do not share a batch.
        tensor("text_pair", "STRING", [1], optional=True),
        ATTEMPT,
    ],
}
TEXT_OUTPUTS = {
    "qa": [
        tensor("answer", "STRING", [1]),
        tensor("start", "INT32", [1]),  # characters of the context; -1 = no answer
        tensor("end", "INT32", [1]),
        tensor("probability", "FP32", [1]),
        tensor("nbest", "STRING", [1]),  # JSON
    ],
    "classify": [
        tensor("label", "STRING", [1]),
        tensor("probability", "FP32", [1]),
        tensor("scores", "STRING", [1]),  # JSON
    ],
    "embed": [tensor("embedding", "FP32", [-1])],
}
TEXT_OUTPUTS["multitask"] = [*TEXT_OUTPUTS["classify"], tensor("tasks", "STRING", [1])]  # JSON, where none was named


def text_config(name: str, task: str, serving: ServingConfig) -> Config:
    """The model that takes text and calls the engine; equal requests are answered from the server's cache.

    Tasks of bert_multitask come and go while it runs, so a kept answer might be that of a task that has gone.
    """
    return {
        "name": name,
        "backend": "python",
        "max_batch_size": 16,
        "input": TEXT_INPUTS[task],
        "output": TEXT_OUTPUTS[task],
        "dynamic_batching": _batching(serving),
        "instance_group": [{"count": serving.text_instances, "kind": Word("KIND_CPU")}],
        "response_cache": {"enable": task != "multitask"},
        "version_policy": {"latest": {"num_versions": 1}},
    }


NATIVE = {  # backend -> what names it, and the file in the version folder
    "onnxruntime": ({"backend": "onnxruntime"}, "padded.onnx"),
    "libtorch": ({"platform": "pytorch_libtorch"}, "model.pt"),
    "tensorrt": ({"platform": "tensorrt_plan"}, "model.plan"),
}


def native_config(name: str, backend: str, settings: Config, serving: ServingConfig) -> Config:
    """The same engine for a backend of NVIDIA's container, which lays the requests end to end itself."""
    shape = {"kind": Word("BATCH_MAX_ELEMENT_COUNT_AS_SHAPE"), "target_name": "longest"}
    ends = {"kind": Word("BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO"), "target_name": "cu_seqlens"}
    derived = [{**each, "data_type": Word("TYPE_INT32"), "source_input": "input__0"} for each in (ends, shape)]
    outputs = [f"output__{k}" for k in range(settings["outputs"])]
    scattered = [
        {"kind": Word("BATCH_SCATTER_WITH_INPUT_SHAPE"), "target_name": output, "source_input": "input__0"}
        for output in outputs
    ]
    return {
        "name": name,
        **NATIVE[backend][0],
        "default_model_filename": NATIVE[backend][1],
        "max_batch_size": max(serving.batch_tokens // settings["max_positions"], 1),
        "input": [tensor(f"input__{k}", "INT32", [-1], allow_ragged_batch=True) for k in range(2)],
        "output": [tensor(output, "FP32", [-1]) for output in outputs],
        "batch_input": derived,
        "batch_output": scattered if settings["per_token"] else [],
        "dynamic_batching": _batching(serving, serving.queue_delay),
        "instance_group": [{"count": serving.instances, "kind": Word("KIND_GPU")}],
        "version_policy": {"latest": {"num_versions": 1}},
    }
