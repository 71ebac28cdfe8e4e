"""Checkpoints of TensorFlow, Hugging Face, NVIDIA, OneFlow, PALs and the 2018 ports, in and out.

Invariant: a checkpoint is read without running code from it, every tensor of its encoder is accounted for, and output
appears whole or not at all::

    state = read_checkpoint("uncased_L-12_H-768_A-12/bert_model.ckpt")
    config = BertConfig.from_dict(state["model_config"])
    weights, report = match_config(state, config, None, "--checkpoint bert_model.ckpt")
    write_checkpoint("bert_base.pt", "native", weights)
"""

from bert.checkpoint.formats.merge import merge_adapter
from bert.checkpoint.formats.table import FORMATS, HOLD_LABELS, read_checkpoint, recognise, write_checkpoint
from bert.checkpoint.formats.weights import (
    HEADS,
    POOLED,
    BertWithHeads,
    Weights,
    build_model,
    heads_in,
    label_names,
    match_config,
)
