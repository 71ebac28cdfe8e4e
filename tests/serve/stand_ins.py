"""Stand-in models for a real Triton server, with the interface of the served ones and no network inside.

``bert_qa`` calls the engine ``bert`` as the real one does, and answers with the first word of the context. A context
"wait N ..." takes N seconds in the engine. ``bert_embed`` counts bytes. There is no classifier::

    write_repository(folder)
"""

from pathlib import Path

QUEUE = """dynamic_batching {
}"""

QA_CONFIG = (
    """backend: "python"
max_batch_size: 16
input [
  {name: "question" data_type: TYPE_STRING dims: [1]},
  {name: "context" data_type: TYPE_STRING dims: [1]},
  {name: "n_best" data_type: TYPE_INT32 dims: [1] optional: true}
]
output [
  {name: "answer" data_type: TYPE_STRING dims: [1]},
  {name: "start" data_type: TYPE_INT32 dims: [1]},
  {name: "end" data_type: TYPE_INT32 dims: [1]},
  {name: "probability" data_type: TYPE_FP32 dims: [1]},
  {name: "nbest" data_type: TYPE_STRING dims: [1]}
]
instance_group [{count: 2 kind: KIND_CPU}]
"""
    + QUEUE
)

QA_MODEL = """
import json
import numpy as np
import triton_python_backend_utils as pb


class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        context = pb.get_input_tensor_by_name(request, "context").as_numpy()
        if context[0, 0].startswith(b"unreadable"):
            return pb.InferenceResponse(error=pb.TritonError("context: unreadable", pb.TritonError.INVALID_ARG))
        text = pb.Tensor("TEXT", context)
        reply = pb.InferenceRequest(model_name="bert", requested_output_names=["WORD"], inputs=[text]).exec()
        if reply.has_error():
            return pb.InferenceResponse(error=pb.TritonError(f"engine bert: {reply.error().message()}"))
        word = pb.get_output_tensor_by_name(reply, "WORD").as_numpy()[0, 0].decode()
        start = context[0, 0].decode().find(word)
        spans = [{"text": word, "start": start, "end": start + len(word), "probability": 0.75}]
        spans.append({"text": "", "start": None, "end": None, "probability": 0.25})
        made = {"answer": word.encode(), "start": np.int32(start), "end": np.int32(start + len(word))}
        made |= {"probability": np.float32(0.75), "nbest": json.dumps(spans).encode()}
        return pb.InferenceResponse(
            [pb.Tensor(k, np.array([[v]], dtype=object if isinstance(v, bytes) else v.dtype)) for k, v in made.items()]
        )
"""

ENGINE_CONFIG = (
    """backend: "python"
max_batch_size: 16
input [{name: "TEXT" data_type: TYPE_STRING dims: [1]}]
output [{name: "WORD" data_type: TYPE_STRING dims: [1]}]
instance_group [{count: INSTANCES kind: KIND_CPU}]
"""
    + QUEUE
)

ENGINE_MODEL = """
import time
import numpy as np
import triton_python_backend_utils as pb


class TritonPythonModel:
    def execute(self, requests):
        replies = []
        for request in requests:
            words = pb.get_input_tensor_by_name(request, "TEXT").as_numpy()[0, 0].split()
            time.sleep(float(words[1]) if words[0] == b"wait" else 0.01)
            replies.append(pb.InferenceResponse([pb.Tensor("WORD", np.array([words[:1]], dtype=object))]))
        return replies
"""

EMBED_CONFIG = (
    """backend: "python"
max_batch_size: 16
input [{name: "text" data_type: TYPE_STRING dims: [1]}]
output [{name: "embedding" data_type: TYPE_FP32 dims: [256]}]
instance_group [{count: 1 kind: KIND_CPU}]
"""
    + QUEUE
)

EMBED_MODEL = """
import numpy as np
import triton_python_backend_utils as pb


class TritonPythonModel:
    def execute(self, requests):
        return [self.embed(pb.get_input_tensor_by_name(request, "text").as_numpy()[0, 0]) for request in requests]

    def embed(self, text):
        counts = np.bincount(np.frombuffer(text, np.uint8), minlength=256).astype(np.float32)
        return pb.InferenceResponse([pb.Tensor("embedding", (counts / np.linalg.norm(counts))[None])])
"""


def write_repository(folder: Path, engine_instances: int = 2) -> Path:
    engine = ENGINE_CONFIG.replace("INSTANCES", str(engine_instances))
    models = {"bert_qa": (QA_CONFIG, QA_MODEL), "bert": (engine, ENGINE_MODEL)}
    models["bert_embed"] = (EMBED_CONFIG, EMBED_MODEL)
    for name, (config, code) in models.items():
        (folder / name / "1").mkdir(parents=True)
        (folder / name / "config.pbtxt").write_text(config)
        (folder / name / "1" / "model.py").write_text(code)
    return folder
