"""What training minimises, as sums over one micro-batch: pre-training, classification, question answering.

Sums, not means: the trainer divides each by its number of terms in the whole optimizer step (all micro-batches of all
ranks), so that accumulation, world size and packing do not change the result.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bert.batch import Batch, TaskBatch, TaskGroup, TokenStream, no_label
from bert.model.attention import Layout, build_layout, gather_rows
from bert.model.bert import (
    BertForMultiTask,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertModel,
)


class SummedLoss(nn.Module):
    """Cross-entropy in fp32, summed over rows: [N, classes], [N] -> scalar, 0 without rows; a label of -1 is none."""

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits.float(), labels, reduction="sum", ignore_index=-1)


def encode(bert: BertModel, batch: TokenStream) -> tuple[list[Tensor], Tensor]:
    """Run a token stream: (every layer's output, each [T, hidden]; pooled [S, hidden])."""
    return bert.encode(batch.input_ids, batch.token_type_ids, _layout(bert, batch))


def encode_tokens(bert: BertModel, batch: TokenStream) -> Tensor:
    """Run a token stream without the pooler: the last layer's output, [T, hidden]."""
    return bert.encode_tokens(batch.input_ids, batch.token_type_ids, _layout(bert, batch))[-1]


def _layout(bert: BertModel, batch: TokenStream) -> Layout:
    return build_layout(batch.cu_seqlens, batch.max_seqlen, batch.num_tokens, bert.attention, batch.groups)


class PreTrainingObjective(nn.Module):
    """MLM and NSP cross-entropy of a stream, each summed.

    With ``dense_sequence_output`` the MLM head runs on the M masked tokens only; without, on all T (the same loss).
    """

    def __init__(self, model: BertForPreTraining, dense_sequence_output: bool = True) -> None:
        super().__init__()
        self.model = model
        self.loss = SummedLoss()
        self.dense_sequence_output = dense_sequence_output

    def compile_units(self) -> list[nn.Module]:
        """Return the parts worth compiling."""
        return [*self.model.bert.compile_units(), self.model.cls.predictions.transform, self.loss]

    def logits(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the MLM logits of the masked tokens [M, vocab_size] and the NSP logits [S, 2]."""
        bert, heads = self.model.bert, self.model.cls
        layers, pooled = encode(bert, batch)
        if self.dense_sequence_output:
            scores = heads.predictions(gather_rows(layers[-1], batch.masked_positions))
        else:
            scores = gather_rows(heads.predictions(layers[-1]), batch.masked_positions)
        return scores, heads.seq_relationship(pooled)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        scores, relationship = self.logits(batch)
        return {
            "mlm_loss": self.loss(scores, batch.masked_labels),
            "nsp_loss": self.loss(relationship, batch.next_sentence_labels),
        }

    @torch.no_grad()
    def evaluate(self, batch: Batch) -> dict[str, Tensor]:
        """Return the losses and the numbers of correct predictions, all summed."""
        scores, relationship = self.logits(batch)
        return {
            "mlm_loss": self.loss(scores, batch.masked_labels),
            "nsp_loss": self.loss(relationship, batch.next_sentence_labels),
            "mlm_correct": (scores.argmax(-1) == batch.masked_labels).sum(),
            "nsp_correct": (relationship.argmax(-1) == batch.next_sentence_labels).sum(),
        }


class ClassificationObjective(nn.Module):
    """Cross-entropy of the class ``label``, or the squared error of a regression, summed over sequences."""

    per_token = False
    labels = ("label",)

    def __init__(self, model: BertForSequenceClassification) -> None:
        super().__init__()
        self.model = model
        self.loss = SummedLoss()
        self.width = model.num_labels

    def compile_units(self) -> list[nn.Module]:
        """Return the parts worth compiling."""
        return [*self.model.bert.compile_units(), self.loss]

    def predict(self, batch: TokenStream) -> Tensor:
        """Return the logits [S, num_labels]."""
        _, pooled = encode(self.model.bert, batch)
        return self.model.classifier(self.model.dropout(pooled))

    def forward(self, batch: TaskBatch) -> dict[str, Tensor]:
        logits, labels = self.predict(batch), batch.labels["label"]
        if self.width == 1:
            values = logits.flatten().float()
            known = torch.where(labels == no_label(labels.dtype), values.detach(), labels.float())
            return {"loss": F.mse_loss(values, known, reduction="sum")}
        return {"loss": self.loss(logits, labels)}


class MultiTaskObjective(nn.Module):
    """The objective of a classification or regression for each task of a stream, summed over its sequences.

    A stream of several tasks is sorted by task and says where each begins (:attr:`bert.batch.TokenStream.groups`).
    Errors of a regression count in units of the range of its values, so that it does not drown the other tasks.
    """

    per_token = False
    labels = ("label", "task")

    def __init__(self, model: BertForMultiTask, ranges: Sequence[float] | None = None) -> None:
        """``ranges`` of the values of each task; those of classifications do not count. By default 1."""
        super().__init__()
        self.model = model
        self.loss = SummedLoss()
        self.width = max(model.num_labels)
        self.ranges = ranges or [1.0] * len(model.num_labels)

    def compile_units(self) -> list[nn.Module]:
        """Return the parts worth compiling."""
        return [*self.model.bert.compile_units(), self.loss]

    def logits(self, batch: TokenStream) -> list[tuple[int, slice, Tensor]]:
        """Return, for each group, its task, its sequences and their logits [n, labels of the task]."""
        _, pooled = encode(self.model.bert, batch)
        pooled = self.model.dropout(pooled)
        groups = batch.groups or (TaskGroup(0, (0, batch.num_sequences), (0, batch.num_tokens)),)
        rows = [(group.task, slice(*group.sequences)) for group in groups]
        return [(task, at, self.model.classifier[task](pooled[at])) for task, at in rows]

    def predict(self, batch: TokenStream) -> Tensor:
        """Return the logits [S, width]; those beyond the labels of a sequence's task are 0."""
        return torch.cat([F.pad(logits, (0, self.width - logits.shape[1])) for *_, logits in self.logits(batch)])

    def forward(self, batch: TaskBatch) -> dict[str, Tensor]:
        labels = batch.labels["label"]
        losses = [self._loss(logits, labels[at], self.ranges[task]) for task, at, logits in self.logits(batch)]
        return {"loss": torch.stack(losses).sum()}

    def _loss(self, logits: Tensor, labels: Tensor, scale: float) -> Tensor:
        if logits.shape[1] == 1:
            return F.mse_loss(logits.flatten().float() / scale, labels.float() / scale, reduction="sum")
        return self.loss(logits, labels.long())


class QuestionAnsweringObjective(nn.Module):
    """Mean of the cross-entropies of an answer's ``start`` and ``end`` over the tokens of its sequence, summed."""

    per_token = True
    labels = ("start", "end")
    width = 2

    def __init__(self, model: BertForQuestionAnswering) -> None:
        super().__init__()
        self.model = model
        self.loss = SummedLoss()

    def compile_units(self) -> list[nn.Module]:
        """Return the parts worth compiling."""
        return [*self.model.bert.compile_units(), self.loss]

    def predict(self, batch: TokenStream) -> Tensor:
        """Return start and end logits of every token [T, 2]."""
        return self.model.qa_outputs(encode_tokens(self.model.bert, batch))

    def forward(self, batch: TaskBatch) -> dict[str, Tensor]:
        logits = self.predict(batch).float()
        lengths, tokens = batch.cu_seqlens.diff().long(), torch.arange(len(logits), device=logits.device)
        row = torch.repeat_interleave(lengths, output_size=len(logits))
        place = row * batch.max_seqlen + tokens - batch.cu_seqlens[row]
        shape = (len(lengths), batch.max_seqlen, 2)
        # Padding cannot be chosen. Minus infinity would make NaN of the softmax of an empty sequence.
        least = torch.finfo(logits.dtype).min
        padded = logits.new_full((shape[0] * shape[1], 2), least).index_copy(0, place, logits).view(shape)
        start, end = padded.unbind(-1)
        return {"loss": (self.loss(start, batch.labels["start"]) + self.loss(end, batch.labels["end"])) / 2}
