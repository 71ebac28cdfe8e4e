"""A folder that looks like the repository after a day's work: small data under the names that the pages use.

As a script it runs commands there, one after the other in this one process, which imports torch once::

    python tests/docs_sandbox.py STEPS.json RESULTS.json        # in the folder
"""

import bz2
import contextlib
import io
import json
import os
import runpy
import shutil
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PIECES = 120
TINY = {
    "vocab_size": PIECES,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
}
OWN_FOLDERS = ("data", "docs", "results")  # commands write into them
PHASE_2 = "data/pretrain/phase2/bin_size_64/parquet"


def build(folder: Path) -> None:
    """Lay out links to the repository's files, and programs that the machine may lack."""
    for path in ROOT.iterdir():
        if path.name not in OWN_FOLDERS and not path.name.startswith("."):
            (folder / path.name).symlink_to(path)
    (folder / "data").mkdir()
    for path in [*(ROOT / "data").glob("*.py"), *(ROOT / "data").glob("*.sh"), ROOT / "data" / "gazetteer"]:
        (folder / "data" / path.name).symlink_to(path)
    for made in (
        "results/7",
        "results/model_repository/bert",
        "data/wikipedia/source",
        PHASE_2,
        "bin",
    ):  # 7: a Slurm job
        (folder / made).mkdir(parents=True)
    (folder / "results/model_repository/bert/config.pbtxt").touch()
    (folder / PHASE_2 / "shard-0.parquet").touch()
    (folder / "tiny.json").write_text(json.dumps(TINY))
    (folder / "bin" / "nvidia-smi").write_text('#!/bin/sh\nfor i in 0 1 2 3 4 5 6 7; do echo "GPU $i: H100"; done\n')
    (folder / "bin" / "nvidia-smi").chmod(0o755)


def environment(folder: Path) -> dict[str, str]:
    """Return the environment of the shell scripts: eight GPUs, and the folder's data."""
    path = [str(folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
    return {
        "PATH": os.pathsep.join(path),
        "HOME": str(folder),
        "PYTHON": sys.executable,
        "PYTHONPATH": str(ROOT),
        "BERT_PREP_WORKING_DIR": str(folder / "data"),
        "VOCAB_FILE": str(folder / "vocab.txt"),
        "CONTAINER_ENGINE": "docker",
    }


def run(folder: Path, steps: list[list[str]]) -> list[dict[str, Any]]:
    """Run ``steps`` in the folder; each result has "code" and "output"."""
    files = folder / "steps.json", folder / "results.json"
    files[0].write_text(json.dumps(steps))
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, __file__, *map(str, files)]
    done = subprocess.run(command, cwd=folder, env=variables, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(files[1].read_text())


# ---- in the folder


def arrange() -> None:
    """Give the encyclopedia of data/make_gazetteer.py the names of the data sets of the pages."""
    made = Path("data/encyclopedia")
    shutil.copytree(made / "train", "my_texts")
    shutil.copytree(made / "squad", "data/download/squad")
    shutil.copytree(made / "glue", "data/download/glue")
    texts = [path.read_text() for path in sorted(made.glob("train/*.txt"))]
    articles = [article for text in texts for article in text.split("\n\n")]
    Path("in.txt").write_text("\n".join(articles[0].splitlines()[:3]) + "\n")
    pages = (
        f"<page><title>{i}</title><ns>0</ns><id>{i}</id><revision><id>1</id><text>{text}</text></revision></page>\n"
        for i, text in enumerate(articles)
    )
    dump = "<mediawiki>\n" + "".join(pages) + "</mediawiki>\n"
    Path("enwiki-latest-pages-articles-multistream.xml.bz2").write_bytes(bz2.compress(dump.encode()))
    Path("reviews").mkdir()
    for name in ("train", "dev"):
        lines = "".join(f"{sentence},{i % 2 + 1}\n" for i, sentence in enumerate(("Good", "Bad") * 6))
        Path(f"reviews/{name}.csv").write_text(f"text,stars\n{lines}")


def publish() -> None:
    """Give the end of phase 2 the names of finished runs, and the format of Google's weights; its log too."""
    newest = max(Path("results").glob("ckpt_*.pt"), key=lambda path: int(path.stem[5:]))
    google = Path("uncased_L-12_H-768_A-12")
    for place in ("results/ckpt_8601.pt", "results/quickstart/checkpoints/ckpt_2400.pt"):
        Path(place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(newest, place)
    Path("results/pals").mkdir()
    shutil.copy("results/dllogger.json", "results/pals")
    convert = ["convert_checkpoint.py", "--checkpoint", str(newest), "--to", "tf", "--output"]
    assert execute([*convert, f"{google}/bert_model.ckpt"])["code"] == 0
    shutil.copy("tiny.json", google / "bert_config.json")
    shutil.copy("vocab.txt", google / "vocab.txt")


def execute(words: list[str]) -> dict[str, Any]:
    """Run a script, or a module, as the interpreter would."""
    script, *arguments = words
    sys.argv = [script, *arguments]
    output, code = io.StringIO(), 0
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            if script.endswith(".py"):
                runpy.run_path(str(ROOT / script), run_name="__main__")
            else:
                runpy.run_module(script, run_name="__main__", alter_sys=True)
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        except BaseException:
            traceback.print_exc()
            code = 1
    return {"code": code, "output": output.getvalue()}


def main(steps: str, results: str) -> None:
    found = []
    for step in json.loads(Path(steps).read_text()):
        if step == ["arrange"]:
            arrange()
        elif step == ["publish"]:
            publish()
        else:
            found.append(execute(step))
    Path(results).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
