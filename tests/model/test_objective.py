"""Objectives on token streams against the padded models and torch's own losses, sequence by sequence."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bert.model.bert import BertForQuestionAnswering, BertForSequenceClassification
from bert.model.objective import ClassificationObjective, QuestionAnsweringObjective
from bert.sequences import collate, from_rows

LENGTHS = [7, 3, 12, 5]


@pytest.fixture
def sequences():
    draw = np.random.default_rng(0)
    rows = [draw.integers(5, 100, length).tolist() for length in LENGTHS]
    labels = {"label": np.array([1, 0, 2, 1]), "start": np.array([0, 2, 11, 3]), "end": np.array([6, 2, 11, 4])}
    return from_rows(rows, [4, 3, 6, 2], labels)


def padded(sequences, index: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids, types and mask [1, 12] of one sequence."""
    start, stop = sequences.offsets[index : index + 2]
    ids, types, mask = (torch.zeros(1, 12, dtype=torch.long) for _ in range(3))
    ids[0, : stop - start] = torch.from_numpy(sequences.tokens[start:stop].astype(np.int64))
    types[0, sequences.segment_starts[index] : stop - start] = 1
    mask[0, : stop - start] = 1
    return ids, types, mask


def test_classification(tiny_config, sequences):
    model = BertForSequenceClassification(tiny_config, 3).eval()
    objective = ClassificationObjective(model)
    batch = collate(sequences, np.array([2, 0, 1, 3]))
    expected = torch.cat([model(*padded(sequences, index)) for index in (2, 0, 1, 3)])
    torch.testing.assert_close(objective.predict(batch), expected, rtol=1e-5, atol=1e-6)
    loss = F.cross_entropy(expected, torch.tensor([2, 1, 0, 1]), reduction="sum")
    torch.testing.assert_close(objective(batch)["loss"], loss, rtol=1e-5, atol=1e-5)
    assert batch.loss_weights() == {"loss": 4}


def test_regression(tiny_config, sequences):
    model = BertForSequenceClassification(tiny_config, 1).eval()
    batch = collate(sequences, np.arange(4))
    batch.labels["label"] = torch.tensor([0.5, 5.0, 2.0, 1.0])
    expected = torch.cat([model(*padded(sequences, index)) for index in range(4)]).flatten()
    loss = (expected - batch.labels["label"]).square().sum()
    torch.testing.assert_close(ClassificationObjective(model)(batch)["loss"], loss, rtol=1e-5, atol=1e-5)


def test_question_answering(tiny_config, sequences):
    model = BertForQuestionAnswering(tiny_config).eval()
    objective = QuestionAnsweringObjective(model)
    batch = collate(sequences, np.array([3, 2, 0, 1]))
    logits, loss = [], torch.zeros(())
    for index in (3, 2, 0, 1):
        start, end = model(*padded(sequences, index))
        real = LENGTHS[index]
        logits.append(torch.stack([start[0, :real], end[0, :real]], dim=1))
        for scores, name in ((start, "start"), (end, "end")):
            target = torch.tensor([sequences.labels[name][index]])
            loss = loss + F.cross_entropy(scores[:, :real], target) / 2  # padding is no place for an answer
    torch.testing.assert_close(objective.predict(batch), torch.cat(logits), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(objective(batch)["loss"], loss, rtol=1e-5, atol=1e-5)


def test_gradients_are_finite_where_lengths_differ(tiny_config, sequences):
    objective = QuestionAnsweringObjective(BertForQuestionAnswering(tiny_config))
    objective(collate(sequences, np.arange(4)))["loss"].backward()
    gradients = [p.grad for p in objective.parameters() if p.grad is not None]
    assert gradients
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
