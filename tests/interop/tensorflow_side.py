"""Runs in TensorFlow's environment: writes a checkpoint of a small BERT and what it computes, or reads one of ours.

    python tensorflow_side.py write FOLDER          # bert_model.ckpt, with Adam's slots, and outputs.npz
    python tensorflow_side.py read PREFIX FILE      # every variable of a checkpoint, as .npz

The forward pass is written in TensorFlow's operations from the paper and from the variables' published names.
"""

import json
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

HIDDEN, LAYERS, HEADS, INNER, PIECES, POSITIONS, LABELS = 32, 3, 4, 64, 73, 40, 3


def shapes() -> dict[str, tuple[int, ...]]:
    found = {
        "bert/embeddings/word_embeddings": (PIECES, HIDDEN),
        "bert/embeddings/position_embeddings": (POSITIONS, HIDDEN),
        "bert/embeddings/token_type_embeddings": (2, HIDDEN),
        "cls/predictions/output_bias": (PIECES,),
        "cls/seq_relationship/output_weights": (2, HIDDEN),
        "cls/seq_relationship/output_bias": (2,),
        "cls/squad/output_weights": (2, HIDDEN),
        "cls/squad/output_bias": (2,),
        "output_weights": (LABELS, HIDDEN),
        "output_bias": (LABELS,),
    }
    dense = {"bert/pooler/dense": (HIDDEN, HIDDEN), "cls/predictions/transform/dense": (HIDDEN, HIDDEN)}
    norms = ["bert/embeddings/LayerNorm", "cls/predictions/transform/LayerNorm"]
    for layer in range(LAYERS):
        scope = f"bert/encoder/layer_{layer}"
        dense |= {f"{scope}/attention/self/{name}": (HIDDEN, HIDDEN) for name in ("query", "key", "value")}
        dense |= {f"{scope}/attention/output/dense": (HIDDEN, HIDDEN)}
        dense |= {f"{scope}/intermediate/dense": (HIDDEN, INNER), f"{scope}/output/dense": (INNER, HIDDEN)}
        norms += [f"{scope}/attention/output/LayerNorm", f"{scope}/output/LayerNorm"]
    for scope, shape in dense.items():
        found |= {f"{scope}/kernel": shape, f"{scope}/bias": shape[1:]}
    for scope in norms:
        found |= {f"{scope}/gamma": (HIDDEN,), f"{scope}/beta": (HIDDEN,)}
    return found


class Bert:
    """BERT on its variables, in TensorFlow's operations."""

    def __init__(self, variables: dict[str, tf.Variable]) -> None:
        self.variables = variables

    def dense(self, x: tf.Tensor, scope: str) -> tf.Tensor:
        return tf.tensordot(x, self.variables[f"{scope}/kernel"], 1) + self.variables[f"{scope}/bias"]

    def norm(self, x: tf.Tensor, scope: str) -> tf.Tensor:
        mean, variance = tf.nn.moments(x, [-1], keepdims=True)
        gamma, beta = self.variables[f"{scope}/gamma"], self.variables[f"{scope}/beta"]
        return tf.nn.batch_normalization(x, mean, variance, beta, gamma, 1e-12)

    def output(self, x: tf.Tensor, scope: str) -> tf.Tensor:
        weights, bias = self.variables[f"{scope}output_weights"], self.variables[f"{scope}output_bias"]
        return tf.matmul(x, weights, transpose_b=True) + bias

    def attention(self, x: tf.Tensor, mask: tf.Tensor, scope: str) -> tf.Tensor:
        def split(name: str) -> tf.Tensor:  # [B, L, H] -> [B, heads, L, size]
            parts = tf.reshape(self.dense(x, f"{scope}/self/{name}"), [*x.shape[:2], HEADS, HIDDEN // HEADS])
            return tf.transpose(parts, [0, 2, 1, 3])

        scores = tf.matmul(split("query"), split("key"), transpose_b=True) / (HIDDEN // HEADS) ** 0.5
        scores += (1.0 - tf.cast(mask[:, None, None, :], tf.float32)) * -10000.0
        context = tf.transpose(tf.matmul(tf.nn.softmax(scores), split("value")), [0, 2, 1, 3])
        return self.norm(
            self.dense(tf.reshape(context, x.shape), f"{scope}/output/dense") + x, f"{scope}/output/LayerNorm"
        )

    def __call__(self, ids: np.ndarray, types: np.ndarray, mask: np.ndarray) -> dict[str, tf.Tensor]:
        tables = [self.variables[f"bert/embeddings/{name}_embeddings"] for name in ("word", "position", "token_type")]
        x = tf.gather(tables[0], ids) + tables[1][: ids.shape[1]] + tf.gather(tables[2], types)
        x = self.norm(x, "bert/embeddings/LayerNorm")
        found = {}
        for layer in range(LAYERS):
            scope = f"bert/encoder/layer_{layer}"
            x = self.attention(x, mask, f"{scope}/attention")
            inner = tf.nn.gelu(self.dense(x, f"{scope}/intermediate/dense"), approximate=False)
            x = self.norm(self.dense(inner, f"{scope}/output/dense") + x, f"{scope}/output/LayerNorm")
            found[f"layer {layer}"] = x
        found["pooled"] = pooled = tf.tanh(self.dense(x[:, 0], "bert/pooler/dense"))
        transform = tf.nn.gelu(self.dense(x, "cls/predictions/transform/dense"), approximate=False)
        transform = self.norm(transform, "cls/predictions/transform/LayerNorm")
        scores = tf.tensordot(transform, tf.transpose(tables[0]), 1)
        found["cls.predictions"] = scores + self.variables["cls/predictions/output_bias"]
        found["cls.seq_relationship"] = self.output(pooled, "cls/seq_relationship/")
        found["qa_outputs"] = self.output(tf.reshape(x, [-1, HIDDEN]), "cls/squad/")
        found["classifier"] = self.output(pooled, "")
        return found


def write(folder: Path) -> None:
    """Write bert_model.ckpt with ``tf.compat.v1.train.Saver``, as Google's scripts do, and what the model computes."""
    draw = np.random.default_rng(0)
    values = {name: draw.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes().items()}
    ids = draw.integers(0, PIECES, (3, 20))
    types = np.broadcast_to(np.arange(20) > 8, (3, 20)).astype(np.int64)
    mask = (np.arange(20) < np.array([[20], [13], [5]])).astype(np.int64)
    outputs = Bert({name: tf.Variable(value) for name, value in values.items()})(ids, types, mask)
    inputs = {"input ids": ids, "input types": types, "input mask": mask}
    np.savez(folder / "outputs.npz", **inputs, **{name: value.numpy() for name, value in outputs.items()})
    np.savez(folder / "variables.npz", **values)
    config = {
        "vocab_size": PIECES,
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": INNER,
        "max_position_embeddings": POSITIONS,
    }
    (folder / "bert_config.json").write_text(json.dumps(config))
    slots = {f"{name}/{slot}": np.zeros_like(value) for name, value in values.items() for slot in ("adam_m", "adam_v")}
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        everything = {**values, **slots, "global_step": np.int64(1000000)}
        variables = {name: v1.Variable(value, name=name, dtype=value.dtype) for name, value in everything.items()}
        session.run(v1.global_variables_initializer())
        v1.train.Saver(variables).save(session, str(folder / "bert_model.ckpt"), write_meta_graph=False)


def read(prefix: str, file: str) -> None:
    """Write all variables of a checkpoint to ``file``."""
    reader = tf.train.load_checkpoint(prefix)
    np.savez(file, **{name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()})


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(Path(sys.argv[2]))
    else:
        read(*sys.argv[2:])
