"""What can be served: question answering, classification and embedding; and how a checkpoint is opened.

Several tasks on one base are opened by :mod:`bert.serve.multitask_export`.

served = open_checkpoint(config)        # of --task qa
served.model.predict(batch)             # (start [T], end [T])
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from bert.batch import TokenStream
from bert.checkpoint.formats import label_names
from bert.checkpoint.open_model import ModelFiles, StartingPoint, load_start
from bert.config import flag
from bert.errors import UsageError
from bert.glue.head import fold
from bert.model.bert import BertForQuestionAnswering, BertForSequenceClassification, BertModel
from bert.model.objective import encode, encode_tokens
from bert.squad.features import check_lengths


@dataclass
class ServedConfig:
    """What is served."""

    checkpoint: str = flag(help="Model to serve, in any format that convert_checkpoint.py reads.")
    task: str = flag(
        help="qa: answer questions about a text. classify: label a text or a pair. embed: a vector for a text. "
        "multitask: label a text or a pair for any of several tasks, on one base.",
        choices=("qa", "classify", "embed", "multitask"),
    )
    labels: str | None = flag(
        None, "classify: the classes' names in order, separated by commas; checkpoints of run_glue.py hold them."
    )
    adapters: str | None = flag(
        None, "multitask: folder of adapter checkpoints (*.safetensors), whose tasks are served from the start."
    )
    pooling: str = flag("mean", "embed: mean of the tokens, or the [CLS] token (cls).", choices=("mean", "cls"))
    max_seq_length: int = flag(384, "Longest input in pieces; longer contexts are read in windows.", minimum=8)
    doc_stride: int = flag(128, "qa: pieces from the start of one window to the start of the next.", minimum=1)
    max_query_length: int = flag(64, "qa: longest question in pieces; longer ones are cut.", minimum=1)
    max_answer_length: int = flag(30, "qa: longest answer in pieces.", minimum=1)
    version_2_with_negative: bool = flag(
        False, "qa: the text may hold no answer; the default for checkpoints trained on SQuAD 2.0."
    )
    null_score_diff_threshold: float = flag(0.0, "qa: give no answer if its score exceeds the best text's by more.")
    files: ModelFiles = field(default_factory=ModelFiles)


class ServedModel(nn.Module):
    """A model with the outputs that are served; ``predict`` runs a token stream."""

    bert: BertModel
    outputs: int  # number of output tensors
    per_token: bool  # whether an output has a row per token, or per sequence
    pooling = ""
    tasks: Any = MappingProxyType({})  # by name, of a model of several, whose ``predict`` takes a name

    def predict(self, batch: TokenStream, *task: str) -> tuple[Tensor, ...]:
        """Run a stream; every task defines it."""
        raise NotImplementedError(type(self).__name__)


class QuestionAnswering(ServedModel):
    outputs, per_token = 2, True

    def __init__(self, start: StartingPoint) -> None:
        super().__init__()
        model = BertForQuestionAnswering(start.model_config)
        start.load_into(model)
        self.bert, self.qa_outputs = model.bert, model.qa_outputs

    def predict(self, batch: TokenStream) -> tuple[Tensor, ...]:
        """Start and end logits, each [T]."""
        return self.qa_outputs(encode_tokens(self.bert, batch)).float().unbind(-1)


class Classification(ServedModel):
    outputs, per_token = 1, False

    def __init__(self, start: StartingPoint) -> None:
        super().__init__()
        model = BertForSequenceClassification(start.model_config, _rows_of(start, "classifier.weight"))
        start.load_into(model)
        self.bert, self.classifier = model.bert, model.classifier

    def predict(self, batch: TokenStream) -> tuple[Tensor, ...]:
        """Logits [S, labels]."""
        return (self.classifier(encode(self.bert, batch)[1]).float(),)


class Embedding(ServedModel):
    outputs, per_token = 1, False

    def __init__(self, start: StartingPoint, pooling: str) -> None:
        super().__init__()
        self.bert, self.pooling = BertModel(start.model_config), pooling
        start.load_into(self.bert, ("pooler.*",))

    def predict(self, batch: TokenStream) -> tuple[Tensor, ...]:
        """Vectors of unit length [S, hidden]: the mean of a sequence's tokens, or its first token's."""
        hidden, cu = encode_tokens(self.bert, batch).float(), batch.cu_seqlens
        if self.pooling == "cls":
            vectors = hidden[cu[:-1]]
        else:
            tokens = torch.arange(batch.num_tokens, device=cu.device)
            members = (tokens >= cu[:-1, None]) & (tokens < cu[1:, None])  # [S, T]
            vectors = members.to(hidden.dtype) @ hidden  # sums; the division cancels in the normalisation
        return (nn.functional.normalize(vectors, dim=-1),)


@dataclass(frozen=True)
class Served:
    """An opened checkpoint: the model, and what its text front needs to know."""

    task: str
    model: ServedModel
    start: StartingPoint
    settings: dict[str, Any]  # plain values, for the front


def open_checkpoint(config: ServedConfig) -> Served:
    """Read --checkpoint for --task; raises UsageError, for a checkpoint of another task, too."""
    lengths = {name: getattr(config, name) for name in ("max_seq_length", "doc_stride", "max_query_length")}
    if config.task == "qa":
        check_lengths(**lengths)
    start = load_start(config.files, config.checkpoint, config.max_seq_length)
    start.what = f"--checkpoint {config.checkpoint}"
    _check_task(start, config.task)
    settings: dict[str, Any] = {"task": config.task, "max_seq_length": config.max_seq_length}
    if config.task == "qa":
        model: ServedModel = QuestionAnswering(start)
        trained_on_2 = bool((start.state or {}).get("version_2_with_negative"))
        settings |= lengths | {
            "max_answer_length": config.max_answer_length,
            "version_2_with_negative": config.version_2_with_negative or trained_on_2,
            "null_score_diff_threshold": config.null_score_diff_threshold,
        }
    elif config.task == "classify":
        model = Classification(start)
        settings["labels"] = _labels(config, start, model.classifier.out_features)
    else:
        model = Embedding(start, config.pooling)
        settings["pooling"] = config.pooling
    return Served(config.task, model.float().eval().requires_grad_(False), start, settings)


HEAD_OF = {"qa": ("qa_outputs.", "run_squad.py"), "classify": ("classifier.", "run_glue.py")}


def _check_task(start: StartingPoint, task: str) -> None:
    names = _tensors(start)
    heads = [other for other, (prefix, _) in HEAD_OF.items() if any(prefix in name for name in names)]
    if task in HEAD_OF and task not in heads:
        prefix, command = HEAD_OF[task]
        holds = f"it was trained for --task {heads[0]}" if heads else f"{command} trains one"
        raise UsageError(f"{start.what}: has no head for --task {task} ({prefix.rstrip('.')}); {holds}")


def _tensors(start: StartingPoint) -> dict[str, Any]:
    state = start.state or {}
    return state.get("model", state)


def _rows_of(start: StartingPoint, suffix: str) -> int:
    return next(tensor.shape[0] for name, tensor in _tensors(start).items() if name.endswith(suffix))


def _labels(config: ServedConfig, start: StartingPoint, classes: int) -> list[str]:
    """Return the names of the classes; none for a regression."""
    held = label_names(start.state or {}, start.model_config, classes)
    given = held if config.labels is None else [label.strip() for label in config.labels.split(",")]
    if classes > 1 and not given:
        return [f"label_{index}" for index in range(classes)]
    if classes > 1 and len(given) != classes:
        raise UsageError(f"--labels {','.join(given)}: {len(given)} labels, expected {classes}, one for each class")
    if classes > 1 and (not all(given) or len(set(given)) < classes):
        raise UsageError(f"--labels {','.join(given)}: expected {classes} different names")
    names, known = ([fold(label) for label in labels] for labels in (given, held))
    if classes > 1 and names != known and sorted(names) == sorted(known):
        raise UsageError(f"--labels {','.join(given)}: the checkpoint has them in the order {','.join(held)}")
    return given if classes > 1 else []
