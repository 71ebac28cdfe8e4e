"""The tables of names, against lists written by hand from the published scripts' variables."""

import pytest

from bert.checkpoint.formats.names import ONEFLOW, TENSORFLOW, Translation
from bert.model.names import NVIDIA, PORTS_2018, canonical_name, older_name

LAYER = "bert/encoder/layer_11", "bert.encoder.layer.11"
VARIABLES = [  # TensorFlow's name, today's, whether the axes are swapped
    ("bert/embeddings/word_embeddings", "bert.embeddings.word_embeddings.weight", False),
    ("bert/embeddings/position_embeddings", "bert.embeddings.position_embeddings.weight", False),
    ("bert/embeddings/token_type_embeddings", "bert.embeddings.token_type_embeddings.weight", False),
    ("bert/embeddings/LayerNorm/gamma", "bert.embeddings.LayerNorm.weight", False),
    ("bert/embeddings/LayerNorm/beta", "bert.embeddings.LayerNorm.bias", False),
    (f"{LAYER[0]}/attention/self/query/kernel", f"{LAYER[1]}.attention.self.query.weight", True),
    (f"{LAYER[0]}/attention/self/key/bias", f"{LAYER[1]}.attention.self.key.bias", False),
    (f"{LAYER[0]}/attention/self/value/kernel", f"{LAYER[1]}.attention.self.value.weight", True),
    (f"{LAYER[0]}/attention/output/dense/kernel", f"{LAYER[1]}.attention.output.dense.weight", True),
    (f"{LAYER[0]}/attention/output/LayerNorm/gamma", f"{LAYER[1]}.attention.output.LayerNorm.weight", False),
    (f"{LAYER[0]}/intermediate/dense/kernel", f"{LAYER[1]}.intermediate.dense.weight", True),
    (f"{LAYER[0]}/intermediate/dense/bias", f"{LAYER[1]}.intermediate.dense.bias", False),
    (f"{LAYER[0]}/output/dense/kernel", f"{LAYER[1]}.output.dense.weight", True),
    (f"{LAYER[0]}/output/LayerNorm/beta", f"{LAYER[1]}.output.LayerNorm.bias", False),
    ("bert/pooler/dense/kernel", "bert.pooler.dense.weight", True),
    ("cls/predictions/transform/dense/kernel", "cls.predictions.transform.dense.weight", True),
    ("cls/predictions/transform/LayerNorm/gamma", "cls.predictions.transform.LayerNorm.weight", False),
    ("cls/predictions/output_bias", "cls.predictions.bias", False),
    ("cls/seq_relationship/output_weights", "cls.seq_relationship.weight", False),
    ("cls/seq_relationship/output_bias", "cls.seq_relationship.bias", False),
    ("cls/squad/output_weights", "qa_outputs.weight", False),
    ("cls/squad/output_bias", "qa_outputs.bias", False),
    ("output_weights", "classifier.weight", False),
    ("output_bias", "classifier.bias", False),
]


@pytest.mark.parametrize(("theirs", "today", "transposed"), VARIABLES)
def test_tensorflow_in_both_directions(theirs, today, transposed):
    assert TENSORFLOW.to_today(theirs) == Translation(today, transposed)
    assert TENSORFLOW.from_today(today) == Translation(theirs, transposed)


FOLDERS = [
    ("bert-embeddings-word_embeddings", "bert.embeddings.word_embeddings.weight", False),
    ("bert-encoder-layer_3-attention-self-query-weight", "bert.encoder.layer.3.attention.self.query.weight", True),
    ("bert-encoder-layer_3-output-LayerNorm-gamma", "bert.encoder.layer.3.output.LayerNorm.weight", False),
    ("cls-predictions-output_bias", "cls.predictions.bias", False),
    ("cls-seq_relationship-output_weights", "cls.seq_relationship.weight", False),
    ("cls-squad-output-weight", "qa_outputs.weight", True),  # OneFlow's own head is [hidden, 2]
    ("cls-squad-output-bias", "qa_outputs.bias", False),
]


@pytest.mark.parametrize(("theirs", "today", "transposed"), FOLDERS)
def test_oneflow_in_both_directions(theirs, today, transposed):
    assert ONEFLOW.to_today(theirs) == Translation(today, transposed)
    assert ONEFLOW.from_today(today) == Translation(theirs, transposed)


def test_a_head_that_came_to_oneflow_from_tensorflow_is_read():
    assert ONEFLOW.to_today("cls-squad-output_weights") == Translation("qa_outputs.weight", False)


@pytest.mark.parametrize("name", ["bert/embeddings/word_embeddings/adam_m", "global_step", "bert/encoder/layer_1/ffn"])
def test_what_the_table_lacks(name):
    assert TENSORFLOW.to_today(name) is None


def test_slots_of_an_optimizer_follow_the_name_of_a_weight():
    names = {"bert/pooler/dense/bias", "output_bias"}
    slots = ["bert/pooler/dense/bias/adam_m", "bert/pooler/dense/bias/Adam_1", "output_bias/adam_v", "gone/adam_v"]
    assert [name for name in [*names, *slots, "bert/pooler/dense/kernel"] if TENSORFLOW.is_slot(name, names)] == slots
    assert ONEFLOW.is_slot("bert-pooler-dense-bias-m", {"bert-pooler-dense-bias"})


OLDER = [
    (PORTS_2018, "encoder.layer.0.output.LayerNorm.gamma", "encoder.layer.0.output.LayerNorm.weight"),
    (PORTS_2018, "embeddings.LayerNorm.beta", "embeddings.LayerNorm.bias"),
    (NVIDIA, "bert.encoder.layer.0.intermediate.dense_act.weight", "bert.encoder.layer.0.intermediate.dense.weight"),
    (NVIDIA, "bert.pooler.dense_act.bias", "bert.pooler.dense.bias"),
    (NVIDIA, "cls.predictions.transform.dense_act.weight", "cls.predictions.transform.dense.weight"),
    (NVIDIA, "bert.encoder.layer.0.attention.output.dense.bias", "bert.encoder.layer.0.attention.output.dense.bias"),
    (NVIDIA, "bert.encoder.layer.0.output.dense.bias", "bert.encoder.layer.0.output.dense.bias"),
]


@pytest.mark.parametrize(("spelling", "older", "today"), OLDER)
def test_older_pytorch_names_in_both_directions(spelling, older, today):
    assert canonical_name(older) == today
    assert older_name(today, spelling) == older
