"""Write a served model into a Triton model repository, which a server may be using at the time.

    model_repository/
      bert/       config.pbtxt  1/ model.onnx settings.json parity.json model.py batchstrategy.so     the engine
      bert_qa/    config.pbtxt  1/ settings.json model.py                                             its text front

Everything is written beside the repository, passes the parity gate there, and is then moved in: a new export is a new
version folder that appears whole. A server reads it when it next loads the model.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bert.config import flag
from bert.errors import UsageError, naming_os_errors
from bert.files import replacing
from bert.lock import owning_output
from bert.serve.engine import LOADERS, SETTINGS, Engine, load_engine
from bert.serve.export import DTYPES, FORMATS, check_precision, write_model, write_onnx
from bert.serve.gate import Parity, check_parity
from bert.serve.model_config import NATIVE, Config, ServingConfig, engine_config, native_config, text_config, to_text
from bert.serve.multitask import TORCH, MultiTaskEngine
from bert.serve.multitask_export import open_multitask, write_multitask
from bert.serve.tasks import Served, ServedConfig, open_checkpoint

MODELS = {  # task -> (engine, text front)
    "qa": ("bert", "bert_qa"),
    "classify": ("bert_classifier_engine", "bert_classifier"),
    "embed": ("bert_embed_engine", "bert_embed"),
    "multitask": ("bert_multitask_engine", "bert_multitask"),
}
KEPT_VERSIONS = 2
STRATEGY = Path(__file__).with_name("token_budget.c")


@dataclass
class ExportConfig:
    output: str = flag(help="Model repository; made where it is missing, and updated where a server uses it.")
    format: str | None = flag(
        None,
        "onnx (the default), torch_export, aoti (compiled ahead of time) or torchscript (deprecated); of --task "
        "multitask it is torch, whose model is built anew where a task comes or goes.",
        choices=(*FORMATS, TORCH),
    )
    precision: str = flag(
        "fp32", "Number format: fp32, fp16, bf16 or int8 (dynamic).", choices=("fp32", "fp16", "bf16", "int8")
    )
    native: str = flag(
        "none", "Also write configs/native.pbtxt for a backend of NVIDIA's container.", choices=("none", *NATIVE)
    )
    served: ServedConfig = field(default_factory=ServedConfig)  # type: ignore[arg-type]
    serving: ServingConfig = field(default_factory=ServingConfig)


def export(config: ExportConfig, notice: Callable[[str], None] = print) -> None:
    """Write --checkpoint to --output, or raise UsageError and leave the repository as it was."""
    with owning_output(config.output, f"--output {config.output}"):
        _export(config, notice)


def _export(config: ExportConfig, notice: Callable[[str], None]) -> None:
    config = replace(config, format=format_of(config))
    multitask = config.format == TORCH
    if config.native == "libtorch" and config.format != "torchscript":
        raise UsageError(f"--native libtorch: it runs --format torchscript, not {config.format}")
    target, (engine, front) = Path(config.output), MODELS[config.served.task]
    with naming_os_errors(f"--output {target}"):
        target.mkdir(parents=True, exist_ok=True)
        for name in (engine, front):
            check_model_folder(target / name)
        stage = _stage(target.resolve())
    try:
        served = open_multitask(config.served) if multitask else open_checkpoint(config.served)
        with naming_os_errors(f"--output {target}"):
            _write_engine(config, served, stage / engine, notice)
            _write_front(config, served, engine, stage / front)
            for name in (engine, front):
                version = move_in(stage / name, target / name)
                notice(f"{target / name}/{version}")
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def format_of(config: ExportConfig) -> str:
    """Return the format to write; raises UsageError for flags that do not fit together."""
    task, kind = config.served.task, config.format
    multitask = task == "multitask"
    kind = kind or (TORCH if multitask else "onnx")
    if multitask != (kind == TORCH):
        raise UsageError(f"--format {kind}: --task {task} has {'torch' if multitask else ' or '.join(FORMATS)}")
    if config.served.adapters is not None and not multitask:
        raise UsageError(f"--adapters {config.served.adapters}: expected with --task multitask")
    if not multitask:
        check_precision(kind, config.precision)
    elif config.precision not in DTYPES or config.native != "none":
        raise UsageError(f"--task multitask: expected --precision {' or '.join(DTYPES)}, without --native")
    return kind


def _stage(target: Path) -> Path:
    """Make a hidden folder on the same file system: beside ``target``, or in it if that is a mounted volume."""
    beside = target.stat().st_dev == target.parent.stat().st_dev and os.access(target.parent, os.W_OK)
    return Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent if beside else target))


def _write_engine(config: ExportConfig, served: Served, folder: Path, notice: Callable[[str], None]) -> None:
    multitask = config.format == TORCH
    version = _new_version(folder, "multitask_model" if multitask else "engine_model")
    device, tokens = "cuda" if config.serving.gpu else "cpu", config.serving.batch_tokens
    parities: list[Parity] = []
    # The bounds of bf16 and int8 are wide, so the same model in fp32 has to pass first.
    stages = ["fp32", config.precision] if config.precision in ("bf16", "int8") else [config.precision]
    for precision in stages:
        if multitask:
            write_multitask(served, precision, version, tokens)
            parities = check_parity(served, MultiTaskEngine.load(version, device=device)) if served.model.tasks else []
        else:
            write_model(served, str(config.format), precision, version, device, tokens)
            parities = check_parity(served, load_engine(version, device=device))
        for parity in parities:
            notice(f"{config.format} {precision}, {parity}")
        refuse_disparity(parities, f"--format {config.format} --precision {precision}")
    rows = [{"case": each.case, "difference": each.difference, "bound": each.bound} for each in parities]
    (version / "parity.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf8")
    by_tokens = compile_strategy(version / "batchstrategy.so", config.serving.batch_tokens)
    if not by_tokens:
        notice("note: no C compiler here: batches are counted in requests, not in tokens (Debian: apt install gcc)")
    settings = json.loads((version / SETTINGS).read_text(encoding="utf8"))
    _write_config(folder, engine_config(folder.name, settings, config.serving, by_tokens))
    if config.native != "none":
        _write_native(config, served, folder, settings)


def refuse_disparity(parities: list[Parity], what: str) -> None:
    """Raise UsageError for an engine that differs from the trained model."""
    wrong = [parity for parity in parities if not parity.holds]
    if wrong:
        raise UsageError(f"{what}: the exported model differs from the trained one ({wrong[0]}); nothing was written")


def _write_native(config: ExportConfig, served: Served, folder: Path, settings: Config) -> None:
    """Write the second configuration, and the standard ONNX graph that it or TensorRT's builder reads."""
    if config.native != "libtorch":
        graph = folder / "1" / "padded.onnx"
        write_onnx(served, "fp32", graph, "cpu", attention="padded")
        engine = Engine(LOADERS["onnx"](graph, 1, "cpu"), {**settings, "precision": "fp32"})
        refuse_disparity(check_parity(served, engine), f"--native {config.native}")
    (folder / "configs").mkdir()
    native = to_text(native_config(folder.name, config.native, settings, config.serving))
    (folder / "configs" / "native.pbtxt").write_text(native, encoding="utf8")


def _write_front(config: ExportConfig, served: Served, engine: str, folder: Path) -> None:
    version = _new_version(folder, "text_model")
    settings = {**served.settings, "engine": engine, "outputs": served.model.outputs}
    settings["tokenizer"] = served.start.tokenizer.state_dict()
    (version / SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf8")
    _write_config(folder, text_config(folder.name, served.task, config.serving))


def _new_version(folder: Path, module: str) -> Path:
    version = folder / "1"
    version.mkdir(parents=True)
    code = (
        f"from bert.serve.{module} import TritonPythonModel  # noqa: F401  # what Triton's python backend looks for\n"
    )
    (version / "model.py").write_text(code, encoding="utf8")
    return version


def _write_config(folder: Path, config: dict[str, Any]) -> None:
    (folder / "config.pbtxt").write_text(to_text(config), encoding="utf8")


def compile_strategy(path: Path, budget: int) -> bool:
    """Compile the library that makes Triton count a batch's tokens; return whether there was a compiler."""
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc")
    if compiler is None:
        return False
    command = [compiler, "-shared", "-fPIC", "-O2", f"-DBUDGET={budget}", "-o", str(path), str(STRATEGY)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def check_model_folder(folder: Path) -> None:
    """Raise UsageError for what an export must not write to: a file, or a link that may lead out of the repository."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--output: {folder} is a file, expected the folder of a model")
    for path in (folder, *(folder.iterdir() if folder.is_dir() else ())):
        if path.is_symlink():
            raise UsageError(f"--output: {path} is a symbolic link, which an export does not follow")


def move_in(staged: Path, target: Path) -> int:
    """Move a model's only version into ``target`` as the next one; older ones but the last are removed. Returns it."""
    if not target.exists():
        os.rename(staged, target)
        return 1
    versions = sorted(int(each.name) for each in target.iterdir() if each.name.isdecimal())
    number = max(versions, default=0) + 1
    os.rename(staged / "1", target / str(number))
    for file in sorted(path for path in staged.rglob("*") if path.is_file()):
        place = target / file.relative_to(staged)
        place.parent.mkdir(exist_ok=True)
        with replacing(place) as temporary:
            shutil.copyfile(file, temporary)
    for old in versions[: -(KEPT_VERSIONS - 1)]:
        shutil.rmtree(target / str(old))
    return number
