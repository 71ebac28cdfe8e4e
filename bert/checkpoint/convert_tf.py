"""TensorFlow's BERT as the state dict of the first PyTorch ports: the encoder, names without "bert.".

    pytorch_pretrained_bert convert_tf_checkpoint_to_pytorch CHECKPOINT CONFIG OUTPUT

As in the published command, the heads and the optimizer's state are dropped; convert_checkpoint.py keeps the heads.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields

from bert.checkpoint.formats import match_config, read_checkpoint, write_checkpoint
from bert.config import flag, one_line_errors, run_command
from bert.errors import UsageError
from bert.model.config import BertConfig


@dataclass
class ConvertConfig:
    tf_checkpoint_path: str = flag(help="Prefix of TensorFlow's files, such as bert_model.ckpt.")
    bert_config_file: str = flag(help="bert_config.json of the model.", aliases=["config_file"])
    pytorch_dump_path: str = flag(help="File to write.")


def convert(config: ConvertConfig) -> None:
    """Read, check, write and report."""
    what = f"--tf_checkpoint_path {config.tf_checkpoint_path}"
    state = read_checkpoint(config.tf_checkpoint_path, "tf")
    weights, report = match_config(state, BertConfig.from_json_file(config.bert_config_file), None, what)
    left_out = write_checkpoint(config.pytorch_dump_path, "2018", weights)
    print(f"{what}: {report}")
    print(f"--pytorch_dump_path {config.pytorch_dump_path}: {len(weights.tensors) - len(left_out)} tensors")


def as_flags(words: Sequence[str]) -> list[str]:
    """Turn the three arguments of the positional form into flags."""
    names = [field.name for field in fields(ConvertConfig)]
    if len(words) != len(names) or any(word.startswith("-") for word in words):
        return list(words)
    return [f"--{name}={word}" for name, word in zip(names, words, strict=True)]


def pytorch_pretrained_bert() -> None:
    """Run the one command of the package ``pytorch_pretrained_bert`` that is kept."""
    with one_line_errors():
        if sys.argv[1:2] != ["convert_tf_checkpoint_to_pytorch"]:
            raise UsageError(
                f"pytorch_pretrained_bert {' '.join(sys.argv[1:2])}: expected convert_tf_checkpoint_to_pytorch "
                "CHECKPOINT CONFIG OUTPUT"
            )
    run_command(convert, ConvertConfig, as_flags(sys.argv[2:]))
