"""What pre-training minimises, as sums over one micro-batch.

Sums, not means: the trainer divides each by its number of terms in the whole optimizer step (all micro-batches of all
ranks), so that accumulation, world size and packing do not change the result.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bert.batch import Batch
from bert.model.attention import build_layout, gather_rows
from bert.model.bert import BertForPreTraining


class SummedLoss(nn.Module):
    """Cross-entropy in fp32, summed over rows: [N, classes], [N] -> scalar. No row, no loss: 0."""

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits.float(), labels, reduction="sum")


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
        """Return the parts worth compiling, each on its own: equal layers then share one compilation."""
        bert = self.model.bert
        return [bert.embeddings, *bert.encoder.layer, self.model.cls.predictions.transform, self.loss]

    def logits(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the MLM logits of the masked tokens [M, vocab_size] and the NSP logits [S, 2]."""
        bert, heads = self.model.bert, self.model.cls
        layout = build_layout(batch.cu_seqlens, batch.max_seqlen, batch.input_ids.numel(), bert.attention)
        layers, pooled = bert.encode(batch.input_ids, batch.token_type_ids, layout)
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
        """Return the losses and the numbers of right predictions, all summed."""
        scores, relationship = self.logits(batch)
        return {
            "mlm_loss": self.loss(scores, batch.masked_labels),
            "nsp_loss": self.loss(relationship, batch.next_sentence_labels),
            "mlm_correct": (scores.argmax(-1) == batch.masked_labels).sum(),
            "nsp_correct": (relationship.argmax(-1) == batch.next_sentence_labels).sum(),
        }
