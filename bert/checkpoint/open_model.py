"""Open a model: tokenizer, configuration and weights, from the checkpoint or from flags.

A checkpoint of this suite carries vocabulary, casing and configuration, so that ``--init_checkpoint`` alone is enough;
flags given as well must agree with it::

    start = load_start(config, "results/ckpt_8601.pt", max_seq_length=384)
    model = BertForQuestionAnswering(start.model_config)
    print(start.load_into(model, fresh=("qa_outputs.*",)))
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from bert.checkpoint import LoadReport, load_weights
from bert.checkpoint.adapter_files import ADAPTER_KEYS, Base, read_adapter
from bert.checkpoint.formats import read_checkpoint
from bert.config import flag
from bert.distributed import DistributedConfig, read_launcher
from bert.errors import UsageError
from bert.model.config import BertConfig
from bert.tokenization import BertTokenizer, Stated, TokenizerFlags, expect_same, guesses, open_tokenizer
from bert.tokenization.opening import build_tokenizer
from bert.train.precision import Precision, PrecisionConfig


@dataclass
class ModelDescription(TokenizerFlags):
    """Flags for what a checkpoint may lack."""

    config_file: str | None = flag(
        None, "bert_config.json of the model; not needed where the checkpoint holds it.", aliases=["bert_config_file"]
    )
    vocab_file: str | None = flag(
        None, "WordPiece vocabulary, or a folder with a tokenizer; not needed where the checkpoint holds it."
    )


@dataclass
class ModelFiles(ModelDescription):
    attention: str = flag(
        "auto", "fused, varlen, sdpa, blocked, matmul, reference; auto = the fastest one of the device."
    )
    adapter_checkpoint: str | None = flag(
        None, "Adapter checkpoint (adapter.safetensors, written by --freeze) to put on the model of --init_checkpoint."
    )


@dataclass
class StartingPoint:
    """Tokenizer and configuration that fit each other, and the weights, if there are any."""

    tokenizer: BertTokenizer
    model_config: BertConfig
    state: dict[str, Any] | None
    what: str  # flag and file of the weights, for messages
    base: Base | None = None  # with --freeze: the model that remains as it is
    random: list[str] = field(default_factory=list)  # parameters that were drawn and that training does not change

    def load_into(self, model: nn.Module, fresh: Sequence[str] = ()) -> LoadReport | None:
        """Fill ``model``; parameters that match a pattern of ``fresh`` may be missing from the checkpoint."""
        if self.state is None:
            return None
        report = load_weights(model, self.state, self.what, fresh)
        unused = getattr(model, "unused", ())
        self.random = [name for name in report.missing if any(fnmatchcase(name, pattern) for pattern in unused)]
        return report

    def constants(self) -> dict[str, Any]:
        """Return the part of a checkpoint that does not change during the run."""
        base = {} if self.base is None else {"base": self.base._asdict()}
        tokenizer = {**self.tokenizer.state_dict(), "guessed": []}  # what a model is trained with is a fact
        return {"model_config": self.model_config.to_dict(), "tokenizer": tokenizer, **base}


def load_start(
    files: ModelFiles, init_checkpoint: str | None, max_seq_length: int, state: dict[str, Any] | None = None
) -> StartingPoint:
    """Read what ``files`` name and ``init_checkpoint`` holds; ``state`` is a checkpoint that was loaded already.

    Raises UsageError where something is missing, or two of them disagree.
    """
    what = f"--init_checkpoint {init_checkpoint}"
    resumed = state is not None
    if state is None and init_checkpoint is not None:
        state = read_checkpoint(init_checkpoint)
    held = state or {}
    tokenizer = find_tokenizer(files, held, what)
    if tokenizer is None:
        raise UsageError(f"--vocab_file: needed, {_lacks('vocabulary', held, what)}")
    model_config = find_model_config(files, held, tokenizer, what)
    state = state if resumed else with_adapter(files.adapter_checkpoint, state, model_config, what)
    if max_seq_length > model_config.max_position_embeddings:
        raise UsageError(
            f"--max_seq_length {max_seq_length}: the model has positions for {model_config.max_position_embeddings}"
        )
    return StartingPoint(tokenizer, model_config, state, what)


def with_adapter(
    path: str | None, state: dict[str, Any] | None, model_config: BertConfig, what: str
) -> dict[str, Any] | None:
    """Return the checkpoint ``state`` with the adapters of the file ``path``, for which ``model_config`` then asks.

    Raises UsageError where they were made for another base.
    """
    if path is None:
        return state
    file = read_adapter(path)
    if state is None:
        raise UsageError(f"{file.what}: needs its base, {file.base}, as the checkpoint to start from")
    return file.applied_to(state, model_config, what)


def load_model_config(files: ModelFiles, init_checkpoint: str | None) -> BertConfig:
    """Return the model's configuration alone, which needs no vocabulary; raises UsageError as :func:`load_start`."""
    state = {} if init_checkpoint is None else read_checkpoint(init_checkpoint)
    what = f"--init_checkpoint {init_checkpoint}"
    config = find_model_config(files, state, find_tokenizer(files, state, what), what)
    with_adapter(files.adapter_checkpoint, state, config, what)
    return config


def find_tokenizer(files: ModelDescription, state: dict[str, Any], what: str) -> BertTokenizer | None:
    """Return the checkpoint's tokenizer or that of ``files``, None without either; on rank 0 say what is guessed.

    Raises UsageError where both are there and disagree.
    """
    if "tokenizer" in state:
        older = {"tokenize_chinese_chars": not state["tokenizer"].get("pretokenized", False)}  # did not say it
        tokenizer = build_tokenizer({**older, **state["tokenizer"]}, what, files.stated())
        if files.vocab_file is not None:
            known = {name: value for name, value in tokenizer.identity.items() if name not in tokenizer.guessed}
            given = open_tokenizer(files.vocab_file, files, [Stated(what, known)])
            expect_same(given, f"--vocab_file {files.vocab_file}", known, what)
            tokenizer = given if tokenizer.guessed else tokenizer
    elif files.vocab_file is not None:
        tokenizer = open_tokenizer(files.vocab_file, files)
    elif "tokenizer_refused" in state:
        raise UsageError(state["tokenizer_refused"])
    else:
        return None
    if tokenizer.guessed and read_launcher(os.environ)[0] == 0:
        print(guesses(tokenizer), file=sys.stderr)
    return tokenizer


def find_model_config(
    files: ModelDescription, state: dict[str, Any], tokenizer: BertTokenizer | None, what: str
) -> BertConfig:
    """Return the configuration that ``files`` or else the checkpoint have, with the vocabulary's true size."""
    source = f"--config_file {files.config_file}" if files.config_file is not None else f"the configuration of {what}"
    if files.config_file is not None:
        config = BertConfig.from_json_file(files.config_file)
        held = state.get("model_config", {})
        vars(config).update({key: held[key] for key in ADAPTER_KEYS if key in held and not hasattr(config, key)})
    elif "model_config" in state:
        try:
            config = BertConfig.from_dict(state["model_config"])
        except UsageError as error:
            raise UsageError(f"{source}: {error}") from error
    else:
        raise UsageError(f"--config_file: needed, {_lacks('configuration', state, what)}")
    if tokenizer is not None and not config.set_vocabulary(tokenizer.vocab_size):
        raise UsageError(
            f"{source}: vocab_size {config.vocab_size}, expected {tokenizer.vocab_size}, the pieces of the vocabulary"
        )
    return config


def _lacks(part: str, state: dict[str, Any], what: str) -> str:
    return f"{what} holds no {part}" if state else "no checkpoint was given"


@dataclass
class InferenceConfig:
    init_checkpoint: str = flag(help="Checkpoint of the model, in any format that convert_checkpoint.py reads.")
    fp16: bool = flag(False, "Compute in fp16.")
    bf16: bool = flag(False, "Compute in bf16.")
    no_cuda: bool = flag(False, "Run on the CPU, as --device cpu does.")
    model: ModelFiles = field(default_factory=ModelFiles)
    distributed: DistributedConfig = field(default_factory=DistributedConfig)

    def place(self) -> DistributedConfig:
        """Return where to run."""
        return replace(self.distributed, device="cpu") if self.no_cuda else self.distributed

    def number_format(self, device: torch.device) -> Precision:
        """Return the number format to run in."""
        return Precision(PrecisionConfig(fp16=self.fp16, bf16=self.bf16), device)
