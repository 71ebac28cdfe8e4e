"""In the server's image, without Triton: import what the models import, and ask the exported one of /models."""

import json
import os
import subprocess
import sys
import types
from importlib.util import find_spec
from pathlib import Path

from bert.serve.engine import load_engine
from bert.serve.requests import Request, pack, unpack
from bert.serve.text import build_front
from bert.tokenization import BertTokenizer

sys.modules["triton_python_backend_utils"] = types.ModuleType("triton_python_backend_utils")  # Triton's own
import bert.serve.engine_model
import bert.serve.text_model  # noqa: F401

assert os.getuid() == 1000
assert find_spec("torch") is None
settings = json.loads(Path("/models/bert_qa/1/settings.json").read_text())
front = build_front(settings, BertTokenizer.from_state_dict(settings["tokenizer"]))
engine = load_engine("/models/bert/1")
prepared = front.prepare({"question": "Who wrote it?", "context": "Ada wrote it."})
requests = [Request.of([each.ids[None], each.types[None], None], engine.settings) for each in prepared.inputs]
outputs = unpack(requests, engine(*pack(requests)), per_token=True)
reply = front.reply(prepared, [[rows[0] for rows in each] for each in outputs])
assert reply["answer"] and reply["answer"] in "Ada wrote it.", reply

command = ["python3", "triton/server.py", "--model-repository", "/models"]
environment = {**os.environ, "BERT_SERVE_ADMIN_KEY": "x" * 32}
done = subprocess.run(command, env=environment, capture_output=True, text=True)
assert (done.returncode, done.stderr.count("\n")) == (2, 1), done
assert "Triton Inference Server is not installed" in done.stderr, done.stderr
