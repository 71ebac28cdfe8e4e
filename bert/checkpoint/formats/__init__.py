"""Checkpoints of TensorFlow, Hugging Face, NVIDIA, OneFlow and the 2018 ports, in and out.

Invariant: a checkpoint is read without running anything from it, every tensor of its encoder is accounted for, and
what is written appears whole or not at all::

    state = read_checkpoint("uncased_L-12_H-768_A-12/bert_model.ckpt")
    weights, report = fit(state, BertConfig.from_dict(state["model_config"]), None, "--checkpoint bert_model.ckpt")
    write_checkpoint("bert_base.pt", "native", weights)
"""

from bert.checkpoint.formats.table import FORMATS, merge, read_checkpoint, recognise, write_checkpoint
from bert.checkpoint.formats.weights import HEADS, BertWithHeads, Report, Weights, build_model, fit, heads_in

__all__ = [
    "FORMATS",
    "HEADS",
    "BertWithHeads",
    "Report",
    "Weights",
    "build_model",
    "fit",
    "heads_in",
    "merge",
    "read_checkpoint",
    "recognise",
    "write_checkpoint",
]
