"""A running Slurm, and a project to train in, in a folder with a blank in its name: text, vocabulary, a tiny model."""

import json
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from slurm.lab import Lab, missing

ROOT = Path(__file__).resolve().parents[2]
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    reason = missing()
    if reason:
        # Continuous integration installs Slurm and says so; there a skip would hide a broken run.sub.
        (pytest.fail if os.environ.get("REQUIRE_SLURM") else pytest.skip)(f"no Slurm: {reason}")
    with Lab.start() as running:
        yield running


class Project:
    """A folder that jobs are submitted from, and the variables that they need."""

    def __init__(self, root: Path):
        self.root = root
        draw = random.Random(0)
        words = [a + b for a in "bdfgklmn" for b in ("a", "e", "i", "o", "u", "an", "en", "on")]
        weights = [1 / (rank + 1) for rank in range(len(words))]
        documents = [
            "\n".join(" ".join(draw.choices(words, weights, k=draw.randint(6, 30))) + "." for _ in range(20))
            for _ in range(60)
        ]
        (root / "texts").mkdir(parents=True)
        (root / "texts" / "a.txt").write_text("\n\n".join(documents) + "\n")
        (root / "vocab.txt").write_text("\n".join([*SPECIALS, ".", *words]) + "\n")
        model = {
            "vocab_size": len(words) + len(SPECIALS) + 1,
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "max_position_embeddings": 512,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        }
        (root / "tiny.json").write_text(json.dumps(model))

    def variables(self, **more: object) -> dict[str, object]:
        """Return the environment of a job: 8 sequences of 128 tokens a step over two processes, on the CPU."""
        return {
            "CODEDIR": ROOT,
            "PYTHON": sys.executable,
            "OMP_NUM_THREADS": 1,
            "CONFIG": self.root / "tiny.json",
            "VOCAB_FILE": self.root / "vocab.txt",
            "datadir": self.root / "shards 128",
            "datadir_phase2": self.root / "shards 512",
            "text_source": self.root / "texts",
            "DASK_TASKS_PER_NODE": 1,
            "NUM_SHARDS_PER_WORKER": 4,
            "NUM_WORKERS": 1,
            "PRECISION": "fp32",
            "BATCHSIZE": 4,
            "GRADIENT_STEPS": 2,
            **more,
        }

    def log(self, job: str) -> str:
        return (self.root / f"slurm-{job}.out").read_text()


@pytest.fixture(scope="session")
def project(tmp_path_factory) -> Project:
    return Project(tmp_path_factory.mktemp("slurm") / "my project")
