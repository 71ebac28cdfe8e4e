"""Compare two BERTs: RMS difference of every layer, of the heads, and of losses on labels derived from the input.

The models get the same padded batch, and only real tokens count::

    inputs = pad(encode_lines(["Who was Jim Henson ? ||| Jim Henson was a puppeteer"], 128, tokenizer))
    differences = compare(run(model_a, inputs), run_transformers("folder", inputs))
    differences[0]                                  # Difference(name='layer 1', rms=1.5e-07, relative=2.1e-07, ...)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from bert.checkpoint.formats import BertWithHeads
from bert.errors import UsageError
from bert.sequences import Sequences

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LABELLED = 7  # every 7th token is a label for the masked language model
IGNORED = -100
INVISIBLE = 1e-9  # a difference far below the rounding of fp32
# Outputs of transformers' classes -> heads; "logits" is a different head in each class.
THEIR_LOGITS = {
    "prediction_logits": "cls.predictions",
    "seq_relationship_logits": "cls.seq_relationship",
    "start_logits": "qa_outputs, start",
    "end_logits": "qa_outputs, end",
}
POOLED = ("cls.seq_relationship", "classifier")  # heads on top of the pooler
THEIR_HEAD = {
    "BertForMaskedLM": "cls.predictions",
    "BertForNextSentencePrediction": "cls.seq_relationship",
    "BertForSequenceClassification": "classifier",
}


class Inputs(NamedTuple):
    """S sequences padded to L tokens, each [S, L]."""

    ids: Tensor
    types: Tensor
    mask: Tensor


class ModelOutputs(NamedTuple):
    """What a model computes from T real tokens in S sequences."""

    layers: list[Tensor]  # each [T, hidden]
    pooled: Tensor | None  # [S, hidden]
    heads: dict[str, Tensor]  # logits, [T, ...] or [S, ...]
    losses: dict[str, Tensor]

    def without_pooler(self) -> ModelOutputs:
        """Return the outputs that do not depend on the pooler."""
        heads, losses = ({k: v for k, v in d.items() if k not in POOLED} for d in (self.heads, self.losses))
        return ModelOutputs(self.layers, None, heads, losses)


class Difference(NamedTuple):
    name: str
    rms: float  # root of the mean squared difference
    relative: float  # the same divided by the root of a's mean square
    is_layer: bool

    @property
    def judged(self) -> float:
        """The value to bound: heads sum over a layer's width, so only their relative difference counts."""
        return self.rms if self.is_layer else self.relative


def pad(sequences: Sequences) -> Inputs:
    """Pad sequences as the models of transformers expect them."""
    rows = [torch.from_numpy(sequences.tokens[a:b]).long() for a, b in pairwise(sequences.offsets)]
    ids = pad_sequence(rows, batch_first=True)
    columns = torch.arange(ids.shape[1])
    lengths, starts = (torch.from_numpy(each)[:, None] for each in (sequences.lengths, sequences.segment_starts))
    real = columns < lengths
    return Inputs(ids, (real & (columns >= starts)).long(), real.long())


@torch.no_grad()
def run(model: BertWithHeads, inputs: Inputs) -> ModelOutputs:
    """Run a model of this suite."""
    layers, pooled = model.eval().bert(*inputs)
    last, heads = layers[-1], {}
    cls = getattr(model, "cls", None)
    if hasattr(cls, "predictions"):
        heads["cls.predictions"] = cls.predictions(last)  # type: ignore[union-attr]
    if hasattr(cls, "seq_relationship"):
        heads["cls.seq_relationship"] = cls.seq_relationship(pooled)  # type: ignore[union-attr]
    if hasattr(model, "qa_outputs"):
        heads["qa_outputs, start"], heads["qa_outputs, end"] = model.qa_outputs(last).unbind(-1)
    if hasattr(model, "classifier"):
        heads["classifier"] = model.classifier(pooled)
    return _outputs(layers, pooled, heads, inputs)


@torch.no_grad()
def run_transformers(folder: str | Path, inputs: Inputs) -> ModelOutputs:
    """Run the model in a folder with transformers, as the class that its configuration names."""
    transformers = _import_transformers(folder)
    try:
        architecture = (transformers.AutoConfig.from_pretrained(folder).architectures or ["BertModel"])[0]
        model: Any = getattr(transformers, architecture).from_pretrained(folder, attn_implementation="eager").eval()
    except (OSError, ValueError, AttributeError) as error:
        raise UsageError(f"transformers:{folder}: {str(error).splitlines()[0]}") from error
    arguments = {"input_ids": inputs.ids, "token_type_ids": inputs.types, "attention_mask": inputs.mask}
    found = getattr(model, "bert", model)(**arguments, output_hidden_states=True)
    heads: dict[str, Tensor] = {}
    if hasattr(model, "bert"):
        names = {**THEIR_LOGITS, "logits": THEIR_HEAD.get(architecture, architecture)}
        outputs = model(**arguments)
        heads = {head: outputs[name] for name, head in names.items() if name in outputs}
    return _outputs(found.hidden_states[1:], found.pooler_output, heads, inputs)


def cut_by_transformers(folder: str | Path, texts: Sequence[str]) -> list[list[int]]:
    """Return the ids of each text by the tokenizer in a folder, without special tokens around it."""
    try:
        tokenizer = _import_transformers(folder).AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, ImportError) as error:
        raise UsageError(f"transformers:{folder}: {str(error).splitlines()[0]}") from error
    return tokenizer(list(texts), add_special_tokens=False)["input_ids"]


def _import_transformers(folder: str | Path) -> Any:
    try:
        import transformers
    except ImportError as error:
        raise UsageError(f"transformers:{folder}: needs transformers: pip install transformers") from error
    return transformers


def compare(a: ModelOutputs, b: ModelOutputs) -> list[Difference]:
    """Return the differences of everything that both have. Raises UsageError if their layers do not correspond."""
    shapes = [(len(side.layers), side.layers[0].shape[1]) for side in (a, b)]
    if shapes[0] != shapes[1]:
        raise UsageError("--a has {} layers of width {}, --b {} of width {}".format(*shapes[0], *shapes[1]))
    pairs = [(f"layer {i + 1}", x, y, True) for i, (x, y) in enumerate(zip(a.layers, b.layers, strict=True))]
    if a.pooled is not None and b.pooled is not None:
        pairs.append(("pooled", a.pooled, b.pooled, True))
    for kind, ours, theirs in (("", a.heads, b.heads), ("loss of ", a.losses, b.losses)):
        pairs += [(kind + name, ours[name], theirs[name], False) for name in ours if name in theirs]
    return [_difference(*pair) for pair in pairs]


def draw(differences: list[Difference], bound: float, title: str) -> Figure:
    """Draw a bar for each difference and a line for the bound. Raises UsageError without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError("--plot: needs matplotlib: pip install matplotlib") from error
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.bar(range(len(differences)), [each.judged for each in differences], color="#1f5f99")
    axes.axhline(bound, color="#d1495b", linestyle="--", label=f"bound {bound:g}")
    axes.set_yscale("log")
    axes.set_ylim(bottom=INVISIBLE)
    axes.set_ylabel("RMS difference; heads, losses: relative")
    axes.set_xticks(range(len(differences)), [each.name for each in differences], rotation=40, ha="right")
    axes.set_title(title, loc="left")
    axes.legend()
    return figure


def labelled(name: str, logits: Tensor, inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Return logits [N, classes] and labels [N], which depend only on the input."""
    if name == "cls.predictions":  # some tokens, unmasked
        chosen = inputs.mask.bool() & (torch.arange(inputs.ids.shape[1]) % LABELLED == 1)
        return logits.flatten(0, 1), inputs.ids.where(chosen, IGNORED).flatten()
    if name == "qa_outputs, start":  # the first token of the second text
        return logits, inputs.types.argmax(1)
    if name == "qa_outputs, end":  # the last token
        return logits, inputs.mask.sum(1) - 1
    return logits, torch.zeros(len(logits), dtype=torch.long)


def _outputs(layers: Iterable[Tensor], pooled: Tensor | None, heads: dict[str, Tensor], inputs: Inputs) -> ModelOutputs:
    losses = {name: F.cross_entropy(*labelled(name, logits, inputs)) for name, logits in heads.items()}
    real = inputs.mask.bool()
    flat = {name: logits[real] if logits.shape[:2] == real.shape else logits for name, logits in heads.items()}
    return ModelOutputs([layer[real] for layer in layers], pooled, flat, losses)


def _difference(name: str, a: Tensor, b: Tensor, is_layer: bool) -> Difference:
    if a.shape != b.shape:
        raise UsageError(f"{name}: --a has the shape {list(a.shape)}, --b {list(b.shape)}")
    rms = float((a.double() - b.double()).square().mean().sqrt())
    scale = float(a.double().square().mean().sqrt())
    return Difference(name, rms, rms / scale if rms else 0.0, is_layer)
