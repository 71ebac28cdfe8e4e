"""Adapters against the published multi-task BERT, written again in published_pals.py, and its numbers of parameters."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from published_pals import BASE, VARIANTS, adapter_shapes, logits, plain_shapes, random_state

from bert.errors import UsageError
from bert.finetune.adapters import is_trained
from bert.model.adapters.config import AdapterConfig
from bert.model.bert import BertForMultiTask
from bert.model.config import BertConfig
from bert.model.objective import MultiTaskObjective
from bert.sequences import Sequences, collate, from_rows

CONFIGS = Path(__file__).parents[2] / "bert_configs"
GLUE_LABELS = [2, 2, 3, 2, 1, 2, 2, 2]  # CoLA, MRPC, MNLI, RTE, STS-B, SST-2, QQP, QNLI: 16 rows of 769 numbers
BASE_ENCODER = 109_482_240 + 6 * 768  # with the padding of this suite's vocabulary table
NORMS = 25 * 2 * 768

SIZES = {"vocab_size": 40, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
SIZES |= {"intermediate_size": 48, "max_position_embeddings": 16, "type_vocab_size": 2}
DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
LABELS = [2, 3, 1]
SMALL = {name: SIZES | keys for name, (keys, _) in VARIANTS.items()}
SMALL |= {f"{name}_with_lhuc": SMALL[name] | {"lhuc": True} for name in ("pals", "low_rank")}
for _keys in SMALL.values():
    _keys |= {key: size for key, size in (("hidden_size_aug", 12), ("extra_dim", 5)) if key in _keys}
LENGTHS = [9, 4, 12, 1, 7, 3, 11]
TASKS = [0, 0, 0, 1, 1, 2, 2]
TOLERANCE = {"rtol": 1e-6, "atol": 1e-6}


def build(variant: str, attention: str = "auto") -> tuple[BertForMultiTask, dict[str, torch.Tensor]]:
    """A model in float64 with random weights, and those weights in the published layout."""
    state = {name: tensor.double() for name, tensor in random_state(SMALL[variant], LABELS).items()}
    model = BertForMultiTask(BertConfig.from_dict(SMALL[variant] | DROPOUT), LABELS, attention).double()
    model.load_state_dict(state)
    return model, state


@pytest.fixture(scope="module")
def sequences() -> Sequences:
    """Seven sequences of three tasks, some of two segments."""
    draw = np.random.default_rng(0)
    rows = [draw.integers(0, 40, length).tolist() for length in LENGTHS]
    labels = {"task": np.array(TASKS), "label": np.array([1, 0, 1, 2, 0, 3.5, 0.25], np.float32)}
    return from_rows(rows, [length // 2 + 1 for length in LENGTHS], labels)


def batch_of(sequences: Sequences, *tasks: int):
    return collate(sequences, np.flatnonzero(np.isin(TASKS, tasks)))


def padded(sequences: Sequences, task: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids, types and mask [B, 12] of the sequences of a task; there are ids in the padding, too."""
    chosen = np.flatnonzero(np.equal(TASKS, task))
    ids = torch.full((len(chosen), 12), 5)
    for row, index in enumerate(chosen):
        start, stop = sequences.offsets[index : index + 2]
        ids[row, : stop - start] = torch.from_numpy(sequences.tokens[start:stop].astype(np.int64))
    columns = torch.arange(12)
    types = (columns >= torch.from_numpy(sequences.segment_starts[chosen])[:, None]).long()
    return ids, types, (columns < torch.from_numpy(sequences.lengths[chosen])[:, None]).long()


@pytest.mark.parametrize("variant", SMALL)
def test_logits_are_the_published_ones(sequences, variant):
    """Of padded batches and of one stream of three tasks, with every backend of a CPU."""
    for attention in ("blocked", "matmul", "sdpa", "reference"):
        model, state = build(variant, attention)
        with torch.no_grad():
            stream = MultiTaskObjective(model.eval()).predict(batch_of(sequences, 0, 1, 2))
        assert stream.shape == (7, 3)
        for task, count in enumerate(LABELS):
            ids, types, mask = padded(sequences, task)
            expected = logits(state, SMALL[variant], ids, types, mask, task)
            with torch.no_grad():
                torch.testing.assert_close(model(ids, types, mask, task=task), expected, **TOLERANCE)
            rows = stream[np.equal(TASKS, task)]
            torch.testing.assert_close(rows[:, :count], expected, **TOLERANCE)
            assert (rows[:, count:] == 0).all()


@pytest.mark.parametrize("variant", SMALL)
def test_loss_and_gradients_are_those_of_the_tasks_present(sequences, variant):
    model, state = build(variant)
    loss = MultiTaskObjective(model, [1.0, 1.0, 5.0])(batch_of(sequences, 0, 2))["loss"]
    first, third = (logits(state, SMALL[variant], *padded(sequences, task), task) for task in (0, 2))
    labels = torch.tensor([[3.5], [0.25]]).double()
    expected = F.cross_entropy(first, torch.tensor([1, 0, 1]), reduction="sum") + ((third - labels) / 5).square().sum()
    torch.testing.assert_close(loss.double(), expected, **TOLERANCE)
    loss.backward()
    for name, parameter in model.named_parameters():
        task = re.match(r"(?:bert\.adapters|classifier)\.(\d)\.", name)
        if task and task[1] == "1":
            assert parameter.grad is None or not parameter.grad.any(), name
        elif not name.endswith("key.bias"):  # it shifts all scores of a query alike
            assert parameter.grad is not None and parameter.grad.any(), name


def test_tasks_with_different_adapters_share_a_stream(sequences):
    kinds = [AdapterConfig("houlsby_plus_pals", 12, extra_size=5, heads=6), AdapterConfig("none", own_norms=True)]
    kinds.append(AdapterConfig("top_attn", 12, heads=2))
    model = BertForMultiTask(BertConfig.from_dict(SIZES | DROPOUT), LABELS, adapters=kinds).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    objective = MultiTaskObjective(model)
    with torch.no_grad():
        together = objective.predict(batch_of(sequences, 0, 1, 2))
        alone = torch.cat([objective.predict(batch_of(sequences, task)) for task in range(3)])
    torch.testing.assert_close(together, alone, **TOLERANCE)


@pytest.mark.parametrize("variant", VARIANTS)
def test_base_has_the_published_number_of_parameters(variant):
    """Also of those that the published --freeze leaves trainable, which finds them by these parts of their names."""
    keys, extra = VARIANTS[variant]
    if (file := CONFIGS / f"{variant}_config.json").exists():
        assert json.loads(file.read_text()).items() >= (BASE | keys).items()
        assert BertConfig.from_json_file(file).adapter.kind == variant
    with torch.device("meta"):
        model = BertForMultiTask(BertConfig.from_dict(BASE | keys), [2])
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    adapter = sum(size for name, size in sizes.items() if name.startswith("bert.adapters.0."))
    assert 8 * adapter == extra
    assert sum(sizes.values()) == BASE_ENCODER + adapter + 2 * 769
    assert sum(size for name, size in sizes.items() if is_trained(name)) == adapter + NORMS + 2 * 769
    shapes = plain_shapes(BASE, GLUE_LABELS)
    for task in range(8):
        shapes |= adapter_shapes(BASE | keys, task)
    free = [name for name in shapes if re.search("aug|classifier|mult|gamma|beta", name)]
    assert sum(math.prod(shapes[name]) for name in free) == extra + NORMS + 12_304


def test_a_plain_bert_has_the_names_that_it_always_had():
    expected = plain_shapes(SIZES, LABELS)
    renamed = {n.replace("gamma", "weight").replace("beta", "bias"): shape for n, shape in expected.items()}
    state = BertForMultiTask(BertConfig.from_dict(SIZES), LABELS).state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == renamed


@pytest.mark.parametrize(
    "keys", [("mult", "top"), ("houlsby", "top"), ("houlsby", "mult"), ("pals", "top"), ("lhuc", "top")]
)
def test_two_adapters_at_once_are_refused(keys):
    with pytest.raises(UsageError, match=" and ".join(keys)):
        BertConfig.from_dict(SIZES | dict.fromkeys(keys, True) | {"hidden_size_aug": 12})
