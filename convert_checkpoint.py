"""Convert a BERT checkpoint between systems and report every tensor.

    python convert_checkpoint.py --checkpoint uncased_L-12_H-768_A-12/bert_model.ckpt --to native --output bert_base.pt
    python convert_checkpoint.py --checkpoint results/ckpt_8601.pt --to hf --output bert_for_transformers
    python convert_checkpoint.py --checkpoint pretrained_snapshot --fresh last_snapshot --to oneflow --output merged

Formats: native (this suite), hf (a folder of Hugging Face), tf (TensorFlow; neither reading nor writing needs it),
nvidia ({"model": ...}), oneflow (a snapshot), 2018 (the encoder's state dict of the first PyTorch ports), pals (many
tasks, as the code of BERT and PALs saves them). The format of --checkpoint is detected. Weights are copied unchanged;
the optimizer's state is dropped. A checkpoint without a configuration needs --config_file; --vocab_file adds the
vocabulary.
"""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from bert.checkpoint import shorten
from bert.checkpoint.formats import (
    FORMATS,
    HOLD_LABELS,
    heads_in,
    match_config,
    merge_adapter,
    read_checkpoint,
    recognise,
    write_checkpoint,
)
from bert.checkpoint.formats.oneflow import merge
from bert.checkpoint.open_model import ModelDescription, find_model_config, find_tokenizer, with_adapter
from bert.config import flag, run_command
from bert.errors import UsageError
from bert.lock import owning_output


@dataclass
class Config:
    checkpoint: str = flag(help="Checkpoint to read: a file, a folder, or the prefix of TensorFlow's files.")
    output: str = flag(help="What to write: a file; for hf and oneflow a folder; for tf a prefix.")
    to: str = flag(help="Format to write.", choices=tuple(FORMATS))
    source_format: str | None = flag(
        None, "Format of --checkpoint. Default: detected.", choices=tuple(FORMATS), aliases=["from"]
    )
    allow_missing: list[str] | None = flag(
        None, "Patterns of tensors that the checkpoint may lack, such as bert.pooler.*; a head may always be missing."
    )
    hidden_act: str | None = flag(
        None,
        "Activation to record instead of the configuration's: NVIDIA's and today's TensorFlow BERT say gelu but "
        "compute gelu_tanh.",
    )
    fresh: str | None = flag(
        None,
        "OneFlow's snapshot of an untrained model: the output is a copy of it with the weights of --checkpoint.",
    )
    adapter_checkpoint: str | None = flag(
        None, "Adapter checkpoint (adapter.safetensors, written by --freeze) to put on the model of --checkpoint."
    )
    merge: bool = flag(
        False, "Fold the adapter into the encoder, to the same outputs: possible for lhuc and for LayerNorms and heads."
    )
    model: ModelDescription = field(default_factory=ModelDescription)


def main(config: Config) -> None:
    with owning_output(config.output, f"--output {config.output}"):
        convert_or_merge(config)


def convert_or_merge(config: Config) -> None:
    """Convert the checkpoint, with --fresh into a copy of a snapshot."""
    if config.fresh is None:
        convert(config, config.output)
        return
    if config.to != "oneflow":
        raise UsageError(f"--fresh {config.fresh}: for --to oneflow only, not {config.to}")
    if (config.source_format or recognise(config.checkpoint)) == "oneflow":
        merge(Path(config.fresh), Path(config.checkpoint), Path(config.output), print)
        return
    with tempfile.TemporaryDirectory() as folder:
        snapshot = Path(folder) / "snapshot"
        convert(config, snapshot)
        merge(Path(config.fresh), snapshot, Path(config.output), print)


def convert(config: Config, output: str | Path) -> None:
    """Read, check, write and report."""
    what = f"--checkpoint {config.checkpoint}"
    state = read_checkpoint(config.checkpoint, config.source_format)
    tokenizer = find_tokenizer(config.model, state, what)
    model_config = find_model_config(config.model, state, tokenizer, what)
    if config.hidden_act is not None:
        model_config.hidden_act = config.hidden_act
    state = with_adapter(config.adapter_checkpoint, state, model_config, what) or state
    weights, report = match_config(state, model_config, tokenizer, what, config.allow_missing or ())
    weights = merge_adapter(weights) if config.merge else weights
    left_out = write_checkpoint(output, config.to, weights)
    print(f"{what}: {report}")
    written = [name for name in weights.tensors if name not in left_out]
    print(f"--output {config.output}: {len(written)} tensors, heads: {', '.join(heads_in(written)) or 'none'}")
    if left_out:
        print(f"not representable in {config.to}: {shorten(left_out)}")
    if config.to not in HOLD_LABELS and weights.facts.get("labels"):
        print(f"not representable in {config.to}: the labels {', '.join(weights.facts['labels'])}")
    if "bert.pooler.dense.weight" not in weights.tensors:
        print("no pooler was written: the checkpoint has none, and no head here needs one")
    if tokenizer is None:
        print("no vocabulary was written: the checkpoint has none, and --vocab_file is not given")


if __name__ == "__main__":
    run_command(main, Config)
