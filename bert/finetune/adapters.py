"""Fine-tuning with adapters: the flags, what ``--freeze`` leaves alone, and the base that it keeps."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from bert.checkpoint.adapter_files import ADAPTER_KEYS, Base, identify
from bert.checkpoint.open_model import StartingPoint
from bert.config import flag
from bert.errors import UsageError
from bert.model.adapters.config import KEYS, build_adapter_config
from bert.model.adapters.names import ours_of
from bert.model.config import BertConfig

ADAPTERS, POOLER = "bert.adapters.", "bert.pooler.*"


@dataclass
class AdapterFlags:
    adapter: str | None = flag(
        None, f"Small modules to add to the encoder: {', '.join(KEYS)}. Default: those of the configuration."
    )
    adapter_size: int = flag(0, "Width of their bottleneck; 0 = the published share of the hidden size.", minimum=0)
    adapter_heads: int = flag(
        0, "Heads of their attention; 0 = as in PALs' code: 6 (the paper says 12), of top_attn 12.", minimum=0
    )
    freeze: bool = flag(
        False, "Train only adapters, heads and LayerNorms; they are also written alone, to adapter.safetensors."
    )


def configure_adapter(config: BertConfig, flags: AdapterFlags) -> None:
    """Make a model's configuration ask for the adapter of the flags. Raises UsageError if it asks for another."""
    held, sizes = config.adapter, {"size": flags.adapter_size, "heads": flags.adapter_heads}
    kind = flags.adapter if flags.adapter is not None else held.kind if held else None
    if kind is None:
        if any(sizes.values()):
            name, value = next((name, value) for name, value in sizes.items() if value)
            raise UsageError(f"--adapter_{name} {value}: expected together with --adapter")
        return
    if held is not None and held.kind != kind:
        raise UsageError(f"--adapter {kind}: the model has the adapter {held.kind}, expected that or no flag")
    if held is not None:
        sizes = {name: value or getattr(held, name) for name, value in sizes.items()}
        sizes |= {"extra_size": held.extra_size, "lhuc": held.lhuc}
    wanted = build_adapter_config(kind, config.hidden_size, **sizes)
    for key in ADAPTER_KEYS:
        vars(config).pop(key, None)
    vars(config).update(wanted.keys())


def is_trained(name: str) -> bool:
    """Tell whether ``--freeze`` trains a parameter: adapters, heads, LayerNorms."""
    return not name.startswith("bert.") or name.startswith(ADAPTERS) or "LayerNorm" in name


def freeze_base(model: nn.Module, start: StartingPoint) -> Base:
    """Leave out of training all but adapters, heads and LayerNorms; return the base, which remains as it is."""
    state = start.state
    if state is None:
        raise UsageError("--freeze: expected --init_checkpoint, a base to keep as it is")
    if POOLER not in getattr(model, "unused", ()) and not any("pooler." in name for name in state.get("model", state)):
        raise UsageError(f"--freeze: {start.what} has no pooler, which would stay random; expected a base with one")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(is_trained(name))
    if "base" in state:
        return Base(**state["base"])
    return identify(state.get("model", state), start.model_config, start.what.removeprefix("--init_checkpoint "))


def new_adapters(start: StartingPoint) -> tuple[str, ...]:
    """Return the pattern of adapters if the checkpoint has none: then they may be fresh."""
    state = start.state or {}
    has_some = any("adapters." in name for name in ours_of(state.get("model", state)))
    return () if has_some else (f"{ADAPTERS}*",)
