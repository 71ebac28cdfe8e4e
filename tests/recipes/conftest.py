"""A tiny corpus, its shards, and the real command line."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from bert.config import parse_args
from bert.prepare.pretraining_data import PretrainingDataConfig, create_pretraining_data

ROOT = Path(__file__).resolve().parents[2]
FORK_RANKS = Path(__file__).with_name("fork_ranks.py")
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Path:
    """Text, vocabulary, model configuration, and shards of 32 and 64 tokens, HDF5 and Parquet."""
    root = tmp_path_factory.mktemp("corpus")
    draw = random.Random(0)
    words = [a + b for a in "bdfgklmn" for b in ("a", "e", "i", "o", "u", "an", "en", "on")]
    weights = [1 / (rank + 1) for rank in range(len(words))]  # Zipf: something that a few steps can learn
    documents = [
        "\n".join(
            " ".join(draw.choices(words, weights, k=draw.randint(4, 12))) + " ." for _ in range(draw.randint(4, 12))
        )
        for _ in range(30)
    ]
    (root / "text.txt").write_text("\n\n".join(documents) + "\n")
    (root / "vocab.txt").write_text("\n".join([*SPECIALS, ".", *words]) + "\n")
    model = {
        "vocab_size": len(words) + 6,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
    }
    (root / "config.json").write_text(json.dumps(model))
    still = {**model, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (root / "config_without_dropout.json").write_text(json.dumps(still))
    for length, predictions, suffix in ((32, 5, "hdf5"), (64, 10, "parquet")):
        (root / f"shards_{length}").mkdir()
        for seed in (1, 2, 3):
            flags = {
                "input_file": root / "text.txt",
                "output_file": root / f"shards_{length}" / f"part_{seed}_training.{suffix}",
                "vocab_file": root / "vocab.txt",
                "max_seq_length": length,
                "max_predictions_per_seq": predictions,
                "dupe_factor": seed,  # shards of uneven size
                "random_seed": seed,
            }
            words_of_command = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
            create_pretraining_data(parse_args(PretrainingDataConfig, words_of_command))
    return root


def pretraining_flags(corpus: Path, output: Path, length: int = 32, **changes: object) -> list[str]:
    """Return the flags of a small run; ``changes`` replace or add some, None removes one."""
    flags: dict[str, object] = {
        "do_train": True,
        "input_dir": corpus / f"shards_{length}",
        "config_file": corpus / "config.json",
        "vocab_file": corpus / "vocab.txt",
        "output_dir": output,
        "json_summary": output / "dllogger.json",
        "tensorboard_dir": "none",
        "max_seq_length": length,
        "max_predictions_per_seq": 5 if length == 32 else 10,
        "train_batch_size": 8,
        "gradient_accumulation_steps": 2,
        "max_steps": 6,
        "learning_rate": 1e-3,
        "warmup_proportion": 0.3,
        "num_steps_per_checkpoint": 100,
        "num_workers": 2,
        "device": "cpu",
        "disable_progress_bar": True,
    }
    flags |= changes
    return [word for name, value in flags.items() if value is not None for word in (f"--{name}", str(value))]


def launch(
    flags: list[str], processes: int = 1, script: Path = ROOT / "run_pretraining.py", torchrun: bool = False
) -> subprocess.Popen:
    """Start the command: more than one process under fork_ranks.py, which takes seconds less than ``torchrun``."""
    launcher: list[str] = []
    if torchrun:
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    elif processes > 1:
        launcher = [str(FORK_RANKS), str(processes)]
    return subprocess.Popen(
        [sys.executable, *launcher, str(script), *flags],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(flags: list[str], processes: int = 1, expect: int = 0, script: Path = ROOT / "run_pretraining.py") -> str:
    """Run the command to its end; return stdout, or stderr where an error code is expected."""
    process = launch(flags, processes, script)
    out, err = process.communicate(timeout=240)
    assert process.returncode == expect, f"exit code {process.returncode}\n{out}\n{err}"
    return out if expect == 0 else err


def logged(path: Path) -> list[dict]:
    """Return the LOG events of a dllogger file."""
    events = [json.loads(line.removeprefix("DLLL ")) for line in path.read_text().splitlines()]
    return [event for event in events if event["type"] == "LOG"]
