"""How PyTorch checkpoints spell BERT's parameters: today's names, which are the model's own, and the older ones.

    canonical_name("bert.pooler.dense_act.bias")                # bert.pooler.dense.bias
    older_name("bert.pooler.dense.bias", NVIDIA)                # bert.pooler.dense_act.bias

Each table reads in both directions, older spelling -> today's.
"""

from __future__ import annotations

from torch import Tensor

from bert.errors import UsageError
from bert.model.adapters.names import ours_of

# The ports of 2018 kept TensorFlow's names of a LayerNorm's scale and shift.
PORTS_2018 = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
# NVIDIA fuses a dense layer with the activation behind it.
NVIDIA = {f"{module}.dense_act.": f"{module}.dense." for module in ("intermediate", "pooler", "transform")}

ENCODER = ("embeddings.", "encoder.", "pooler.", "adapters.")  # the modules of a bare BertModel
VOCABULARY_ROWS = ("word_embeddings.weight", "predictions.decoder.weight", "predictions.bias")
DECODER = "cls.predictions.decoder.weight"  # tied to the word embeddings
CONSTANTS = ("embeddings.position_ids", "embeddings.token_type_ids")  # buffers that Hugging Face once saved


def canonical_name(name: str) -> str:
    """Translate a parameter name of an older checkpoint: ``LayerNorm.gamma``, ``intermediate.dense_act.weight``."""
    for older, today in (PORTS_2018 | NVIDIA).items():
        name = name.replace(older, today)
    return name


def older_name(name: str, spelling: dict[str, str]) -> str:
    """Translate one of the model's names to an older ``spelling``."""
    for older, today in spelling.items():
        name = name.replace(today, older)
    return name


def canonical_names(state_dict: dict[str, Tensor], bare: bool, what: str = "checkpoint") -> dict[str, Tensor]:
    """Return the tensors under today's names, the encoder's with ``bert.`` in front, or without it if ``bare``."""
    result: dict[str, Tensor] = {}
    for original, tensor in ours_of(state_dict, what).items():
        name = canonical_name(original.replace("_orig_mod.", "").removeprefix("module."))
        core = name.removeprefix("bert.")
        if core.startswith(ENCODER):
            name = core if bare else f"bert.{core}"
        if core in CONSTANTS:
            continue
        if name in result:
            raise UsageError(f"{what}: two tensors mean {name}; one of them is {original}")
        result[name] = tensor
    # Hugging Face writes the bias of the vocabulary under two names.
    bias = result.pop("cls.predictions.decoder.bias", None)
    if bias is not None:
        result.setdefault("cls.predictions.bias", bias)
    return result
