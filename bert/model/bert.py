"""BERT and its task models.

``encode`` works on a token stream (see :mod:`bert.batch`); calling a model takes the padded
``(input_ids, token_type_ids, attention_mask)`` of the reference implementations, unpads, runs and pads back::

    layers, pooled = BertModel(config)(input_ids, token_type_ids, attention_mask)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bert.batch import TaskGroup
from bert.model.adapters.config import AdapterConfig
from bert.model.adapters.names import ours_of
from bert.model.adapters.plain import NoAdapters
from bert.model.adapters.stream import build_adapters
from bert.model.attention import Layout, build_layout, check_attention, resolve_attention, scatter_rows
from bert.model.config import BertConfig
from bert.model.dropout import Dropout
from bert.model.heads import BertPreTrainingHeads
from bert.model.layers import BertEmbeddings, BertEncoder, BertPooler, LayerNorm
from bert.model.names import canonical_name


class BertPreTrainedModel(nn.Module):
    """Initialisation and checkpoint spelling, shared by all models."""

    def __init__(self, config: BertConfig, attention: str = "auto") -> None:
        super().__init__()
        self.config = config
        self.attention = check_attention(attention)
        self.register_load_state_dict_pre_hook(_rename_keys)

    def initialize(self) -> None:
        """Draw weights from N(0, initializer_range); biases 0, LayerNorm (1, 0), padding rows of the vocabulary 0."""
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=self.config.initializer_range)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
            if isinstance(module, LayerNorm):
                module.reset_parameters()
        for module in self.modules():  # last: the decoder above shares this table
            if isinstance(module, BertEmbeddings):
                nn.init.zeros_(module.word_embeddings.weight[self.config.vocab_size :])


class BertModel(BertPreTrainedModel):
    """The encoder and the pooler (Devlin et al. 2019, section 3)."""

    def __init__(
        self, config: BertConfig, attention: str = "auto", adapters: Sequence[AdapterConfig | None] | None = None
    ) -> None:
        """``adapters`` are those of each task; by default there is one task, with the adapter of ``config``, if any."""
        super().__init__(config, attention)
        self.embeddings = BertEmbeddings(config)
        self.encoder = BertEncoder(config)
        self.pooler = BertPooler(config)
        self.adapters: Any = build_adapters(config, [config.adapter] if adapters is None else adapters)
        self.initialize()

    def compile_units(self) -> list[nn.Module]:
        """Return the parts worth compiling, each on its own: equal layers then share one compilation."""
        if isinstance(self.adapters, NoAdapters):
            return [self.embeddings, *self.encoder.layer]
        # Adapters differ from layer to layer and task to task, and stay as they are.
        layers: Any = self.encoder.layer
        return [self.embeddings, *(part for layer in layers for part in (layer.attention.self, layer.intermediate))]

    def encode_tokens(self, input_ids: Tensor, token_type_ids: Tensor, layout: Layout) -> list[Tensor]:
        """Run a stream without the pooler: [T], [T] -> every layer's output, each [T, hidden]."""
        hooks = self.adapters.hooks(layout)
        embedded = self.embeddings(input_ids, token_type_ids, layout.position_ids, hooks.embeddings_norm)
        return self.encoder(embedded, layout, hooks)

    def encode(self, input_ids: Tensor, token_type_ids: Tensor, layout: Layout) -> tuple[list[Tensor], Tensor]:
        """Run a stream: [T], [T] -> (every layer's output, each [T, hidden]; pooled [S, hidden])."""
        layers = self.encode_tokens(input_ids, token_type_ids, layout)
        # An empty sequence may begin at the end. (No number here, which an exported model would keep.)
        first_tokens = torch.minimum(layout.cu_seqlens[:-1], layout.cu_seqlens[-1:] - 1)
        return layers, self.pooler(layers[-1][first_tokens])

    def forward(
        self,
        input_ids: Tensor,
        token_type_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        task: int = 0,
    ) -> tuple[list[Tensor], Tensor]:
        """Run a padded batch with the adapter of ``task``.

        Shapes: ids, types and mask [B, L] -> (list of [B, L, hidden], zero where masked; pooled [B, hidden]). The mask
        may have holes; a row without a real token is a ValueError. Types default to 0, the mask to 1.
        """
        types = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        index, layout = _unpad(mask.bool(), resolve_attention(self.attention, input_ids.device))
        layout = layout._replace(groups=(TaskGroup(task, (0, len(mask)), (0, index.numel())),))
        layers, pooled = self.encode(input_ids.flatten()[index], types.flatten()[index], layout)
        return [scatter_rows(x, index, mask.numel()).unflatten(0, mask.shape) for x in layers], pooled


class BertForPreTraining(BertPreTrainedModel):
    """Masked language model and next-sentence prediction. The decoder shares the word embeddings."""

    def __init__(self, config: BertConfig, attention: str = "auto") -> None:
        super().__init__(config, attention)
        self.bert = BertModel(config, attention)
        self.cls = BertPreTrainingHeads(config, self.bert.embeddings.word_embeddings)
        self.initialize()

    def forward(
        self,
        input_ids: Tensor,
        token_type_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        masked_lm_labels: Tensor | None = None,
        next_sentence_label: Tensor | None = None,
    ) -> Any:
        """Score a padded batch: (MLM logits [B, L, vocab_size], NSP logits [B, 2]), or their loss if labels are given.

        The loss is the mean over masked tokens (labels -1 and -100 are ignored) plus the mean over sequences.
        """
        layers, pooled = self.bert(input_ids, token_type_ids, attention_mask)
        scores, relationship = self.cls.predictions(layers[-1]), self.cls.seq_relationship(pooled)
        if masked_lm_labels is None or next_sentence_label is None:
            return scores, relationship
        labels = masked_lm_labels.flatten().clamp(min=-1)
        return _mean_loss(scores.flatten(0, 1), labels, -1) + _mean_loss(
            relationship, next_sentence_label.flatten(), -1
        )


class BertForSequenceClassification(BertPreTrainedModel):
    """A linear classifier on the pooled [CLS]; one label means regression."""

    def __init__(self, config: BertConfig, num_labels: int = 2, attention: str = "auto") -> None:
        super().__init__(config, attention)
        self.num_labels = num_labels
        self.bert = BertModel(config, attention)
        self.dropout = Dropout(config.hidden_dropout_prob)
        self.classifier = nn.Linear(config.hidden_size, num_labels)
        self.initialize()

    def forward(
        self,
        input_ids: Tensor,
        token_type_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Any:
        """[B, L] -> logits [B, num_labels]; with ``labels`` [B] -> (loss, logits)."""
        _, pooled = self.bert(input_ids, token_type_ids, attention_mask)
        logits = self.classifier(self.dropout(pooled))
        if labels is None:
            return logits
        if self.num_labels == 1:
            return F.mse_loss(logits.flatten().float(), labels.flatten().float()), logits
        return F.cross_entropy(logits.float(), labels.flatten()), logits


class BertForMultiTask(BertPreTrainedModel):
    """One encoder with an adapter and a linear classifier for each task (Stickland and Murray 2019)."""

    def __init__(
        self,
        config: BertConfig,
        num_labels: Sequence[int],
        attention: str = "auto",
        adapters: Sequence[AdapterConfig | None] | None = None,
    ) -> None:
        """``num_labels`` of each task, 1 = a regression; ``adapters`` of each, by default the one of ``config``."""
        super().__init__(config, attention)
        self.num_labels = list(num_labels)
        self.bert = BertModel(config, attention, [config.adapter] * len(num_labels) if adapters is None else adapters)
        self.dropout = Dropout(config.hidden_dropout_prob)
        self.classifier = nn.ModuleList(nn.Linear(config.hidden_size, count) for count in num_labels)
        self.initialize()

    def forward(
        self,
        input_ids: Tensor,
        token_type_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        task: int = 0,
    ) -> Tensor:
        """[B, L], all of one task -> logits [B, num_labels[task]]"""
        _, pooled = self.bert(input_ids, token_type_ids, attention_mask, task)
        return self.classifier[task](self.dropout(pooled))


class BertForQuestionAnswering(BertPreTrainedModel):
    """Start and end scores for every token (SQuAD)."""

    unused = ("bert.pooler.*",)  # patterns of parameters that a checkpoint may lack, since no output depends on them

    def __init__(self, config: BertConfig, attention: str = "auto") -> None:
        super().__init__(config, attention)
        self.bert = BertModel(config, attention)
        self.qa_outputs = nn.Linear(config.hidden_size, 2)
        self.initialize()

    def forward(
        self,
        input_ids: Tensor,
        token_type_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
    ) -> Any:
        """[B, L] -> (start logits, end logits), each [B, L]; with positions [B] -> the mean of both losses.

        As in the reference, a position below 0 is clamped to 0, and one at or beyond L is ignored.
        """
        layers, _ = self.bert(input_ids, token_type_ids, attention_mask)
        start, end = self.qa_outputs(layers[-1]).unbind(-1)
        if start_positions is None or end_positions is None:
            return start, end
        outside = start.shape[1]
        positions = [p.flatten().clamp(0, outside) for p in (start_positions, end_positions)]
        losses = [_mean_loss(s, p, outside) for s, p in zip((start, end), positions, strict=True)]
        return (losses[0] + losses[1]) / 2


class BertForMultipleChoice(BertPreTrainedModel):
    """One score per choice (SWAG)."""

    def __init__(self, config: BertConfig, num_choices: int = 2, attention: str = "auto") -> None:
        super().__init__(config, attention)
        self.num_choices = num_choices
        self.bert = BertModel(config, attention)
        self.dropout = Dropout(config.hidden_dropout_prob)
        self.classifier = nn.Linear(config.hidden_size, 1)
        self.initialize()

    def forward(
        self,
        input_ids: Tensor,
        token_type_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Any:
        """[B, num_choices, L] -> scores [B, num_choices]; with ``labels`` [B] -> the loss."""
        flat = [None if x is None else x.flatten(0, 1) for x in (input_ids, token_type_ids, attention_mask)]
        _, pooled = self.bert(*flat)
        scores = self.classifier(self.dropout(pooled)).view(-1, self.num_choices)
        return scores if labels is None else F.cross_entropy(scores.float(), labels.flatten())


def _rename_keys(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    own = {name: state_dict.pop(name) for name in list(state_dict) if name.startswith(prefix)}
    renamed = ours_of({name.removeprefix(prefix): tensor for name, tensor in own.items()})
    state_dict.update({prefix + canonical_name(name): tensor for name, tensor in renamed.items()})


def _unpad(mask: Tensor, attention: str) -> tuple[Tensor, Layout]:
    """[B, L] bool -> (flat indices of the real tokens [T], their layout). A token's position is its column."""
    lengths = mask.sum(1)
    if not bool((lengths > 0).all()):
        raise ValueError("attention_mask has a row without a real token")
    index = mask.flatten().nonzero().flatten()
    cu_seqlens = F.pad(lengths.cumsum(0), (1, 0)).int()
    layout = build_layout(cu_seqlens, int(lengths.max()), index.numel(), attention)
    return index, layout._replace(position_ids=index % mask.shape[1])


def _mean_loss(logits: Tensor, labels: Tensor, ignored: int) -> Tensor:
    """Return the mean cross-entropy over the labels that count; 0 if none does (the plain mean would be 0/0)."""
    total = F.cross_entropy(logits.float(), labels, ignore_index=ignored, reduction="sum")
    return total / (labels != ignored).sum().clamp(min=1)
