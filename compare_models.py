"""Compare two checkpoints of BERT: RMS difference of every layer, of the heads, and of losses.

    python compare_models.py --a native:m.pt --b hf:FOLDER --text "Who was Jim Henson ? ||| Jim Henson was a puppeteer"
    python compare_models.py --a bert_model.ckpt --b transformers:FOLDER --plot rms.png

A side is a path, or FORMAT:PATH with a format of convert_checkpoint.py; transformers:FOLDER runs Hugging Face's own
code instead of this suite's. A side without configuration or vocabulary takes the other's; where both have one, each
cuts the text, and must cut it alike. Heads that both have are compared, and their losses on labels derived from the
text. The exit code is 1 if the texts are cut differently, or a difference exceeds --bound: the RMS for layers, the RMS
relative to side a for heads and losses.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from bert.checkpoint import load_weights
from bert.checkpoint.compare import (
    Difference,
    Inputs,
    ModelOutputs,
    compare,
    cut_by_transformers,
    draw,
    pad,
    run,
    run_transformers,
)
from bert.checkpoint.formats import FORMATS, build_model, match_config, read_checkpoint
from bert.checkpoint.open_model import ModelDescription, find_model_config, find_tokenizer
from bert.config import flag, run_command
from bert.errors import UsageError
from bert.features.extract import SEPARATOR, encode_lines
from bert.files import replacing
from bert.tokenization import BertTokenizer

TEXT = "Who was Jim Henson ? ||| Jim Henson was a puppeteer"
TRANSFORMERS = "transformers"


@dataclass
class Config:
    a: str = flag(help="One model: a path, FORMAT:PATH, or transformers:FOLDER.")
    b: str = flag(help="The other model, in the same forms.")
    text: list[str] | None = flag(None, f"Texts to run, pairs as 'one ||| other'. Default: '{TEXT}'.")
    max_seq_length: int = flag(128, "Longest input in word pieces; longer ones are cut.", minimum=3)
    bound: float = flag(
        1e-5,
        "Largest accepted difference: fp32 rounding stays near 1e-6, the two forms of GELU differ by about 1e-4.",
        minimum=0.0,
    )
    plot: str | None = flag(None, "File for a bar chart of the differences, such as rms.png.")
    model: ModelDescription = field(default_factory=ModelDescription)


class Side(NamedTuple):
    """One of the two models."""

    what: str  # flag and value
    format: str | None  # a key of FORMATS, TRANSFORMERS, or None: detected
    path: str
    state: dict[str, Any]


def main(config: Config) -> None:
    sides = [read_side("--a", config.a), read_side("--b", config.b)]
    texts, tokenizer = config.text or [TEXT], common_tokenizer(config, sides)
    # A side that lacks its configuration takes the other's.
    lent = next(({"model_config": side.state["model_config"]} for side in sides if "model_config" in side.state), {})
    sides = [side._replace(state={**lent, **side.state}) for side in sides]
    inputs = pad(encode_lines(texts, config.max_seq_length, tokenizer))
    differences = compare(*(outputs(config, side, tokenizer, inputs) for side in sides))
    worst = max(differences, key=lambda each: each.judged)
    show(differences)
    verdict = "above" if worst.judged > config.bound else "within"
    print(f"largest: {worst.name}, {worst.judged:.3e}, {verdict} the bound {config.bound:g}")
    if config.plot is not None:
        save_plot(config.plot, differences, config)
    if worst.judged > config.bound:
        sys.exit(1)


def read_side(flag_name: str, text: str) -> Side:
    head, colon, path = text.partition(":")
    if not colon or head not in (*FORMATS, TRANSFORMERS):
        head, path = None, text
    return Side(f"{flag_name} {text}", head, path, read_checkpoint(path, "hf" if head == TRANSFORMERS else head))


def common_tokenizer(config: Config, sides: list[Side]) -> BertTokenizer:
    """Return a tokenizer of either side; where both have one, each must cut the texts alike."""
    found = [find_tokenizer(config.model, side.state, side.what) for side in sides]
    if found[0] is None or found[1] is None:
        tokenizer = found[0] or found[1]
        if tokenizer is None:
            raise UsageError(f"--vocab_file: needed, neither {sides[0].what} nor {sides[1].what} holds a vocabulary")
        return tokenizer
    parts = [part for text in config.text or [TEXT] for part in text.split(SEPARATOR)]
    cut = [
        cut_by_transformers(side.path, parts)
        if side.format == TRANSFORMERS and "tokenizer" in side.state
        else tokenizer.encode_batch(parts)
        for side, tokenizer in zip(sides, (found[0], found[1]), strict=True)
    ]
    for part, a, b in zip(parts, *cut, strict=True):
        if a != b:
            print(f"{part!r}: {sides[0].what} cuts it into the ids {a}, {sides[1].what} into {b}", file=sys.stderr)
            sys.exit(1)
    return found[0]


def outputs(config: Config, side: Side, tokenizer: BertTokenizer, inputs: Inputs) -> ModelOutputs:
    model_config = find_model_config(config.model, side.state, tokenizer, side.what)
    longest = inputs.ids.shape[1]
    if longest > model_config.max_position_embeddings:
        raise UsageError(
            f"--text: {longest} pieces; {side.what} has positions for {model_config.max_position_embeddings}"
        )
    if side.format == TRANSFORMERS:
        return run_transformers(side.path, inputs)
    weights, report = match_config(side.state, model_config, tokenizer, side.what, ["bert.pooler.*"])
    model = build_model(weights.tensors, model_config)
    load_weights(model, weights.tensors, side.what)
    found = run(model, inputs)
    return found.without_pooler() if report.missing else found


def show(differences: list[Difference]) -> None:
    width = max(len(each.name) for each in differences)
    print(f"{'':{width}}  {'RMS':>9}  {'relative':>9}")
    for each in differences:
        print(f"{each.name:{width}}  {each.rms:9.3e}  {each.relative:9.3e}")


def save_plot(path: str, differences: list[Difference], config: Config) -> None:
    file = Path(path)
    try:
        with replacing(file) as temporary:
            draw(differences, config.bound, f"{config.a} and {config.b}").savefig(temporary, dpi=130)
    except (OSError, ValueError) as error:
        raise UsageError(f"--plot {path}: {error}") from error


if __name__ == "__main__":
    run_command(main, Config)
