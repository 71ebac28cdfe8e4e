"""Padding to a static shape: shapes by hand, and that padding adds nothing to any loss or gradient."""

import pytest
import torch

from bert.batch import Batch, TaskBatch
from bert.model.bert import BertForPreTraining, BertForQuestionAnswering, BertForSequenceClassification
from bert.model.objective import ClassificationObjective, PreTrainingObjective, QuestionAnsweringObjective
from bert.train.static_batch import StaticShape, refill, static_batch, static_shape

CPU = torch.device("cpu")


def stream(lengths: list[int], seed: int = 0, **labels: torch.Tensor) -> TaskBatch:
    draw, tokens = torch.Generator().manual_seed(seed), sum(lengths)
    ids, types = torch.randint(101, (tokens,), generator=draw), torch.randint(2, (tokens,), generator=draw)
    return TaskBatch(ids, types, torch.tensor([0, *lengths]).cumsum(0).int(), max(lengths), labels)


@pytest.mark.parametrize(
    "tokens,sequences,longest,masked,expected",
    [
        # 30,400 tokens: steps of 16384 / 64 = 256; 64 tokens of padding are one sequence more; 257 in steps of 32.
        (30400, 256, 128, 4560, StaticShape(30464, 288, 128, 4608)),
        (30463, 256, 128, 4609, StaticShape(30464, 288, 128, 4736)),  # one token of padding is enough
        (30464, 256, 128, 4608, StaticShape(30720, 288, 128, 4608)),  # none is not
        (98304, 192, 512, 14000, StaticShape(99328, 208, 512, 14080)),  # steps of 1024; 194 in steps of 16
        (40, 4, 13, 0, StaticShape(256, 16, 64, 64)),
        (40, 4, 13, 3, StaticShape(256, 16, 64, 64)),
    ],
)
def test_shapes(tokens, sequences, longest, masked, expected):
    zeros = torch.zeros
    batch = Batch(zeros(tokens), zeros(tokens), zeros(sequences + 1), longest, *[zeros(masked)] * 2, zeros(sequences))
    assert static_shape(batch, longest=512) == expected


def test_padding_by_hand():
    """4 tokens, padded to 9 in sequences of at most 3: [5 6] [7 8] | [0 0 0] [0 0] [] []"""
    batch = Batch(
        torch.tensor([5, 6, 7, 8]), torch.tensor([0, 1, 1, 0]), torch.tensor([0, 2, 4], dtype=torch.int32), 2,
        torch.tensor([1, 2]), torch.tensor([9, 3]), torch.tensor([1, -1]),
    )  # fmt: skip
    padded = static_batch(batch, StaticShape(9, 6, 3, 4), CPU)
    assert padded.input_ids.tolist() == [5, 6, 7, 8, 0, 0, 0, 0, 0]
    assert padded.token_type_ids.tolist() == [0, 1, 1, 0, 0, 0, 0, 0, 0]
    assert padded.cu_seqlens.tolist() == [0, 2, 4, 7, 9, 9, 9] and padded.cu_seqlens.dtype == torch.int32
    assert padded.max_seqlen == 3
    assert padded.masked_positions.tolist() == [1, 2, 8, 8]
    assert padded.masked_labels.tolist() == [9, 3, -1, -1]
    assert padded.next_sentence_labels.tolist() == [1, -1, -1, -1, -1, -1]

    values = stream([1], score=torch.tensor([0.5]))
    least = torch.finfo(torch.float32).min
    assert static_batch(values, StaticShape(9, 3, 8), CPU).labels["score"].tolist() == [0.5, least, least]

    memory = padded.input_ids.data_ptr()
    refill(padded, Batch(*(each[:1] for each in (batch.input_ids, batch.token_type_ids)), torch.tensor([0, 1]), 1,
                         torch.tensor([0]), torch.tensor([4]), torch.tensor([0])))  # fmt: skip
    assert padded.input_ids.tolist() == [5] + [0] * 8 and padded.input_ids.data_ptr() == memory
    assert padded.cu_seqlens.tolist() == [0, 1, 4, 7, 9, 9, 9]
    assert padded.masked_labels.tolist() == [4, -1, -1, -1]


def objective_and_batch(name, config, make_batch):
    lengths = [5, 1, 17, 9]
    if name.startswith("pre-training"):
        return PreTrainingObjective(BertForPreTraining(config), name == "pre-training"), make_batch([5, 3, 17, 9])
    if name == "questions":
        start, end = torch.tensor([0, 0, 16, 3]), torch.tensor([4, -1, 2, 3])
        return QuestionAnsweringObjective(BertForQuestionAnswering(config)), stream(lengths, start=start, end=end)
    labels = torch.tensor([0, 2, 1, 1]) if name == "classes" else torch.tensor([0.5, -3.0, 2.0, 0.0])
    width = 3 if name == "classes" else 1
    return ClassificationObjective(BertForSequenceClassification(config, width)), stream(lengths, label=labels)


@pytest.mark.parametrize("name", ["pre-training", "pre-training, all tokens", "classes", "regression", "questions"])
def test_padding_adds_nothing(tiny_config, make_batch, name):
    """Losses and gradients of the padded batch, with empty sequences, are those of the stream without padding."""
    results = []
    for pad in (False, True):
        torch.manual_seed(1)
        objective, batch = objective_and_batch(name, tiny_config, make_batch)
        if pad:
            batch = static_batch(batch, static_shape(batch, longest=64), CPU)
            assert int((batch.cu_seqlens.diff() == 0).sum()) >= 4
        losses = objective(batch)
        torch.stack(list(losses.values())).sum().backward()
        results.append((losses, {name: p.grad for name, p in objective.named_parameters()}))
        if name not in ("pre-training", "pre-training, all tokens"):
            count = 32 if name == "questions" else 4  # tokens or sequences
            results[-1][0]["outputs"] = objective.predict(batch)[:count].detach()
    for name, expected in results[0][0].items():
        torch.testing.assert_close(results[1][0][name], expected, rtol=1e-6, atol=1e-6)
    for name, expected in results[0][1].items():
        if expected is None:
            assert results[1][1][name] is None, name
        else:
            torch.testing.assert_close(results[1][1][name], expected, rtol=1e-5, atol=1e-6, msg=lambda m, n=name: n + m)
