"""The published multi-task BERT, written again in plain functions: a padded batch and a state dict in its own names.

    tensors = random_state({**SIZES, **VARIANTS["pals"][0]}, [2, 3])
    logits(tensors, keys, ids, types, mask, task=1)                    # [B, 3]

Stickland and Murray 2019, "BERT and PALs", with the names and ties of the ``best_model.pth`` that its program saves.
Nothing here uses the package under test.
"""

import math

import torch
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]

# BERT-base, and what each variant's configuration adds to it; the number of parameters that it adds for 8 tasks.
BASE = {"vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
BASE |= {"intermediate_size": 3072, "max_position_embeddings": 512, "type_vocab_size": 2}
VARIANTS = {
    "plain": ({}, 0),
    "pals": ({"mult": True, "pals": True, "hidden_size_aug": 204}, 14_558_688),
    "low_rank": ({"mult": True, "hidden_size_aug": 100}, 14_828_928),
    "top_attn": ({"top": True, "hidden_size_aug": 204}, 10_563_552),
    "top_bert_layer": ({"top": True, "bert_lay_top": True}, 56_702_976),
    "houlsby": ({"houlsby": True, "hidden_size_aug": 50}, 14_902_656),
    "houlsby_plus_pals": ({"houlsby": True, "pals": True, "hidden_size_aug": 156, "extra_dim": 50}, 16_429_344),
    "lhuc": ({"lhuc": True}, 73_728),
}
PAL_HEADS, TOP_HEADS, TOP_LAYERS = 6, 12, 6
MERGED = ("query", "key", "value")


# --- Names and shapes


def linear_shapes(name: str, inputs: int, outputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def norm_shapes(name: str, width: int) -> Shapes:
    return {f"{name}.gamma": (width,), f"{name}.beta": (width,)}


def pair_shapes(name: str, hidden: int, inner: int, down: str = "aug_dense", up: str = "aug_dense2") -> Shapes:
    """A product down and one up; ``{t}`` comes after the name if the two are shared by the layers."""
    return linear_shapes(name.format(down), hidden, inner) | linear_shapes(name.format(up), inner, hidden)


def heads_shapes(name: str, width: int) -> Shapes:
    return {k: v for each in MERGED for k, v in linear_shapes(f"{name}.{each}", width, width).items()}


def attention_shapes(name: str, width: int) -> Shapes:
    output = linear_shapes(f"{name}.output.dense", width, width) | norm_shapes(f"{name}.output.LayerNorm", width)
    return heads_shapes(f"{name}.self", width) | output


def layer_shapes(name: str, keys: dict) -> Shapes:
    hidden, wide = keys["hidden_size"], keys["intermediate_size"]
    output = linear_shapes(f"{name}.output.dense", wide, hidden) | norm_shapes(f"{name}.output.LayerNorm", hidden)
    middle = linear_shapes(f"{name}.intermediate.dense", hidden, wide)
    return attention_shapes(f"{name}.attention", hidden) | middle | output


def plain_shapes(keys: dict, num_labels: list[int]) -> Shapes:
    hidden, table = keys["hidden_size"], "bert.embeddings.{}_embeddings.weight"
    shapes: Shapes = {
        table.format("word"): (keys["vocab_size"], hidden),
        table.format("position"): (keys["max_position_embeddings"], hidden),
        table.format("token_type"): (keys["type_vocab_size"], hidden),
        **norm_shapes("bert.embeddings.LayerNorm", hidden),
        **linear_shapes("bert.pooler.dense", hidden, hidden),
    }
    for layer in range(keys["num_hidden_layers"]):
        shapes |= layer_shapes(f"bert.encoder.layer.{layer}", keys)
    for task, labels in enumerate(num_labels):
        shapes |= linear_shapes(f"classifier.{task}", hidden, labels)
    return shapes


def top_shapes(keys: dict, task: int) -> Shapes:
    """The attention layers, or the layer of BERT, on top of the encoder."""
    if keys.get("bert_lay_top"):
        return layer_shapes(f"bert.encoder.multi_layers.{task}", keys)
    width = keys["hidden_size_aug"]
    shapes = pair_shapes(f"bert.encoder.{{}}.{task}", keys["hidden_size"], width, "mult_dense", "mult_dense2")
    for depth in range(TOP_LAYERS):
        shapes |= attention_shapes(f"bert.encoder.multi_layers.{task}.{depth}", width)
    return shapes


def adapter_shapes(keys: dict, task: int) -> Shapes:
    """The tensors of one task that are stored under a single name, and the first names of the shared ones."""
    hidden, inner, pals = keys["hidden_size"], keys.get("hidden_size_aug", 0), keys.get("pals")
    shapes = top_shapes(keys, task) if keys.get("top") else {}
    if pals:
        shapes |= pair_shapes(f"bert.encoder.{{}}.{task}", hidden, inner, "mult_aug_dense", "mult_aug_dense2")
    for layer in range(keys["num_hidden_layers"]):
        name = f"bert.encoder.layer.{layer}"
        if keys.get("lhuc"):
            shapes[f"{name}.multi_lhuc.{task}.lhuc"] = (hidden,)
        if keys.get("houlsby"):
            first = f"{name}.attention.output.multi_layers.{task}.{{}}"
            shapes |= pair_shapes(first, hidden, keys["extra_dim"] if pals else inner)
        where = pal_name(keys, layer, task)
        if where and pals:
            shapes |= heads_shapes(f"{where}.attn", inner)
        elif where:
            shapes |= pair_shapes(where + ".{}", hidden, inner)
    return shapes


def pal_name(keys: dict, layer: int, task: int) -> str | None:
    """The second adapter of Houlsby's layers, or the only one of a PAL or of a low-rank layer."""
    if not keys.get("mult") and not keys.get("houlsby"):
        return None
    return f"bert.encoder.layer.{layer}.{'output.' * bool(keys.get('houlsby'))}multi_layers.{task}"


def random_state(keys: dict, num_labels: list[int], seed: int = 0) -> dict[str, Tensor]:
    """Draw a state dict in the published layout, float32; what the layers share is one tensor under several names.

    The numbers are large, so that attention is far from uniform and its heads matter.
    """
    draw = torch.Generator().manual_seed(seed)
    shapes = plain_shapes(keys, num_labels)
    for task in range(len(num_labels)):
        shapes |= adapter_shapes(keys, task)
    state = {name: torch.randn(shape, generator=draw) * 0.3 + name.endswith("gamma") for name, shape in shapes.items()}
    for name, tensor in list(state.items()):
        if "mult_aug_dense" in name:  # bert.encoder.mult_aug_dense2.{t}.weight
            _, _, module, task, kind = name.split(".")
            for layer in range(keys["num_hidden_layers"]):
                state[f"{pal_name(keys, layer, int(task))}.{module.removeprefix('mult_')}.{kind}"] = tensor
    return state


# --- The model


def linear(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def layer_norm(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    """With the divisor n, and 1e-12 under the root."""
    x = x - x.mean(-1, keepdim=True)
    x = x / (x.square().mean(-1, keepdim=True) + 1e-12).sqrt()
    return state[f"{name}.LayerNorm.gamma"] * x + state[f"{name}.LayerNorm.beta"]


def gelu(x: Tensor) -> Tensor:
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def attend(state: dict[str, Tensor], name: str, x: Tensor, mask: Tensor, heads: int) -> Tensor:
    """[B, L, width] -> [B, L, width], without a product at the end."""
    q, k, v = (linear(state, f"{name}.{each}", x).unflatten(-1, (heads, -1)).transpose(1, 2) for each in MERGED)
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    scores = scores + (1.0 - mask.to(x.dtype))[:, None, None, :] * -10000.0
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


def low_rank(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return linear(state, f"{name}.aug_dense2", gelu(linear(state, f"{name}.aug_dense", x)))


def pal(state: dict[str, Tensor], name: str, x: Tensor, mask: Tensor) -> Tensor:
    inner = attend(state, f"{name}.attn", linear(state, f"{name}.aug_dense", x), mask, PAL_HEADS)
    return gelu(linear(state, f"{name}.aug_dense2", inner))


def attention(state: dict[str, Tensor], name: str, x: Tensor, mask: Tensor, heads: int, task: int = 0) -> Tensor:
    """Attention with its output product; with Houlsby's first adapter where the state has it."""
    y = linear(state, f"{name}.output.dense", attend(state, f"{name}.self", x, mask, heads))
    adapter = f"{name}.output.multi_layers.{task}"
    if f"{adapter}.aug_dense.weight" in state:
        y = y + low_rank(state, adapter, y)
    return layer_norm(state, f"{name}.output", y + x)


def bert_layer(state: dict[str, Tensor], keys: dict, name: str, x: Tensor, mask: Tensor, task: int) -> Tensor:
    attended = attention(state, f"{name}.attention", x, mask, keys["num_attention_heads"], task)
    z = linear(state, f"{name}.output.dense", gelu(linear(state, f"{name}.intermediate.dense", attended)))
    scale = 2 * torch.sigmoid(state[f"{name}.multi_lhuc.{task}.lhuc"]) if keys.get("lhuc") else 1.0
    if not keys.get("mult") and not keys.get("houlsby"):
        return scale * layer_norm(state, f"{name}.output", z + attended)
    adapter = pal_name(keys, int(name.rpartition(".")[2]), task)
    seen = x if keys.get("mult") else attended
    term = pal(state, adapter, seen, mask) if keys.get("pals") else low_rank(state, adapter, seen)
    return layer_norm(state, f"{name}.output", z + attended + scale * term)


def on_top(state: dict[str, Tensor], keys: dict, x: Tensor, mask: Tensor, task: int) -> Tensor:
    """Replace the encoder's output."""
    name = f"bert.encoder.multi_layers.{task}"
    if keys.get("bert_lay_top"):
        return bert_layer(state, {"num_attention_heads": keys["num_attention_heads"]}, name, x, mask, task)
    x = linear(state, f"bert.encoder.mult_dense.{task}", x)
    for depth in range(TOP_LAYERS):
        x = attention(state, f"{name}.{depth}", x, mask, TOP_HEADS)
    return linear(state, f"bert.encoder.mult_dense2.{task}", x)


def logits(state: dict[str, Tensor], keys: dict, ids: Tensor, types: Tensor, mask: Tensor, task: int) -> Tensor:
    """Ids, types and mask [B, L] -> [B, labels of the task]."""
    tables = [state[f"bert.embeddings.{each}_embeddings.weight"] for each in ("word", "position", "token_type")]
    x = tables[0][ids] + tables[1][: ids.shape[1]] + tables[2][types]
    x = layer_norm(state, "bert.embeddings", x)
    for layer in range(keys["num_hidden_layers"]):
        x = bert_layer(state, keys, f"bert.encoder.layer.{layer}", x, mask, task)
    if keys.get("top"):
        x = on_top(state, keys, x, mask, task)
    return linear(state, f"classifier.{task}", torch.tanh(linear(state, "bert.pooler.dense", x[:, 0])))
