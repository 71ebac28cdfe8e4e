"""Small models, batches and texts that the tests share, and what becomes of tests that need more than a CPU."""

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bert.batch import Batch
from bert.model.attention import HAS_TRITON
from bert.model.config import BertConfig
from bert.tokenization import SPECIAL_TOKENS

ROOT = Path(__file__).parents[1]
WORDS = ["river", "stone", "green", "seven", "walks", "under", "the", "on", "and", "of", "bright", "song", "table"]

# One thread for this process and for those it starts: tests run side by side, and sums depend on the threads.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"

# A shell's background jobs ignore Ctrl-C, and those of nohup a hang-up; so would the commands that the tests start.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let workers of pytest-xdist start with the slow files, so that none is left with a long one at the end."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("triton") and not HAS_TRITON:
        pytest.skip("the package triton is not installed")
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("no CUDA device")


@pytest.fixture(scope="module")
def interpreted(request: pytest.FixtureRequest):
    """What the test's file prints as JSON when it is run as a script with its kernels in Triton's interpreter."""
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, request.path], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def tiny_config() -> BertConfig:
    """A 3-layer model without dropout; 101 pieces are padded to 104 rows."""
    return BertConfig(
        vocab_size=101,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        max_position_embeddings=64,
    )


@pytest.fixture
def make_batch():
    """Return a function (lengths, masked per sequence, vocab_size) -> a random token-stream batch."""

    def make(lengths: list[int], masked: int = 2, vocab_size: int = 101, seed: int = 0) -> Batch:
        draw = torch.Generator().manual_seed(seed)
        cu_seqlens = torch.tensor([0, *lengths]).cumsum(0)
        positions = [
            start + torch.randperm(length, generator=draw)[:masked].sort().values
            for start, length in zip(cu_seqlens.tolist(), lengths, strict=False)
        ]
        masked_positions = torch.cat(positions)
        tokens = sum(lengths)
        return Batch(
            input_ids=torch.randint(vocab_size, (tokens,), generator=draw),
            token_type_ids=torch.randint(2, (tokens,), generator=draw),
            cu_seqlens=cu_seqlens.int(),
            max_seqlen=max(lengths),
            masked_positions=masked_positions,
            masked_labels=torch.randint(vocab_size, (len(masked_positions),), generator=draw),
            next_sentence_labels=torch.randint(2, (len(lengths),), generator=draw),
        )

    return make


@pytest.fixture(scope="session")
def write_vocabulary():
    """Return a function (path) -> path, with a vocabulary of the shared words in it."""

    def write(path: Path) -> Path:
        letters = "abcdefghijklmnopqrstuvwxyz"
        pieces = [*SPECIAL_TOKENS, *WORDS, *letters, *(f"##{letter}" for letter in letters), ".", ",", "##ing"]
        path.write_text("\n".join(pieces) + "\n")
        return path

    return write


@pytest.fixture
def vocab_file(tmp_path: Path, write_vocabulary) -> Path:
    return write_vocabulary(tmp_path / "vocab.txt")


@pytest.fixture(scope="session")
def make_text():
    """Return a function (documents, seed) -> text of sentences, one a line, a blank line between documents."""

    def make(documents: int, seed: int = 0, sentences: int = 12) -> str:
        rng = random.Random(seed)

        def sentence() -> str:
            words = rng.choices(WORDS, k=rng.randint(3, 14)) + rng.choices(["walking", "sing", "xyz"], k=1)
            return " ".join(words).capitalize() + "."

        return "\n\n".join(
            "\n".join(sentence() for _ in range(rng.randint(2, 2 * sentences))) for _ in range(documents)
        )

    return make


@pytest.fixture(scope="session")
def write_texts(make_text):
    """Return a function (folder) -> folder, with three files in it, 90 documents in all, about 90 kB."""

    def write(folder: Path) -> Path:
        folder.mkdir()
        for index in range(3):
            (folder / f"text_{index}.txt").write_text(make_text(30, seed=index) + "\n")
        return folder

    return write


@pytest.fixture
def text_folder(tmp_path: Path, write_texts) -> Path:
    return write_texts(tmp_path / "texts")
