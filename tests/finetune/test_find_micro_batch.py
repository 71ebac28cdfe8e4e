"""The memory table: what is counted, that the reported size is the border, what is tried on a GPU, and the commands."""

import dataclasses
import json
from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import run_glue
import run_squad
from bert.config import parse_args
from bert.distributed import StopSignal, World
from bert.errors import UsageError
from bert.finetune import find_micro_batch as micro_batch
from bert.finetune.find_micro_batch import (
    GB,
    LENGTHS,
    Memory,
    Row,
    accumulation,
    compute,
    free_memory,
    kept_bytes,
    largest_that_fits,
    largest_within,
    limit_of,
    memory_of,
    random_batch,
    random_sequences,
)
from bert.finetune.training import build_task_trainer
from bert.model.bert import BertForQuestionAnswering
from bert.model.objective import QuestionAnsweringObjective
from bert.train.run import build_run

LABELS = ("start", "end")
HERE = World(0, 0, 1, torch.device("cpu"))


@pytest.fixture
def files(tmp_path, vocab_file, tiny_config):
    pieces = len(vocab_file.read_text().splitlines())
    config = dataclasses.replace(tiny_config, vocab_size=pieces, max_position_embeddings=128, hidden_dropout_prob=0.1)
    (tmp_path / "config.json").write_text(config.to_json_string())
    return tmp_path


def words(files, *more: str) -> list[str]:
    return [
        *("--config_file", str(files / "config.json"), "--output_dir", str(files / "out"), "--device", "cpu"),
        *more,
    ]


def make_trainer(files, *more: str):
    """Return the trainer of run_squad.py with these flags, and the model's configuration."""
    config = parse_args(run_squad.Config, words(files, *more)).training
    model_config = micro_batch.BertConfig.from_json_file(files / "config.json")
    objective = QuestionAnsweringObjective(BertForQuestionAnswering(model_config))
    run = build_run(config, HERE, StopSignal())
    return build_task_trainer(run, objective, random_sequences(1, 8, LABELS), 1), model_config


def row(files, length: int, *more: str, limit: int = GB) -> Row:
    trainer, model_config = make_trainer(files, *more)
    return compute(trainer, model_config, length, LABELS, Memory(0, 0), limit)


# --- What is counted


def test_autograd_keeps_of_a_product_its_input_and_of_tanh_its_output():
    linear = nn.Linear(10, 30)  # its weight is kept, too, but is a parameter
    x = torch.randn(7, 10, requires_grad=True)
    assert sorted(kept_bytes(lambda: torch.tanh(linear(x)), linear)) == [4 * 7 * 10, 4 * 7 * 30]


def test_a_storage_counts_once_and_whole():
    x = torch.randn(6, 5, requires_grad=True) * 1
    assert kept_bytes(lambda: x[:2] * x[2:4] + x.t()[:, :2].t() * x[0], nn.Identity()) == [4 * 30]


@pytest.mark.parametrize("more", [(), ("--checkpoint_activations",), ("--bf16",)], ids=str)
def test_what_is_kept_is_linear_in_the_batch(files, more):
    trainer, _ = make_trainer(files, *more)
    kept = [sum(micro_batch.kept_by_model(trainer, random_batch(n, 64, LABELS))) for n in (1, 2, 3, 6)]
    assert kept[1] > kept[0]
    assert kept[2] - kept[1] == kept[1] - kept[0]
    assert kept[3] - kept[2] == 3 * (kept[1] - kept[0])


def test_recomputed_layers_keep_their_inputs_alone(files):
    trainer, model_config = make_trainer(files, "--checkpoint_activations")
    once, twice = (sum(micro_batch.kept_by_model(trainer, random_batch(n, 64, LABELS))) for n in (1, 2))
    inputs = model_config.num_hidden_layers * 64 * model_config.hidden_size * 4
    # And what the embeddings keep: as much as two layers for LayerNorm and dropout, and their indices.
    assert inputs <= twice - once < 2.25 * inputs


def test_recomputation_and_half_precision_take_less(files):
    plain, recomputed, half = (row(files, 16, *more) for more in ((), ("--checkpoint_activations",), ("--bf16",)))
    assert recomputed.per_sequence < 0.7 * plain.per_sequence
    assert half.per_sequence < 0.9 * plain.per_sequence
    assert recomputed.size > plain.size < half.size


def test_longer_sequences_take_more_by_token(files):
    rows = [row(files, length) for length in (16, 32, 64, 128)]
    each = [r.per_sequence / r.length for r in rows]
    assert each == sorted(set(each))  # attention is quadratic
    sizes = [r.size for r in rows]
    assert sizes == sorted(set(sizes), reverse=True)


def fixed_memory(files, *more: str) -> tuple[Memory, int, int]:
    """Return the memory, the number of parameters, and of those that are trained: answers do not use the pooler."""
    trainer, _ = make_trainer(files, *more)
    numbers = {name: parameter.numel() for name, parameter in trainer.objective.named_parameters()}
    trained = sum(number for name, number in numbers.items() if "pooler" not in name)
    return memory_of(trainer, random_batch(1, 8, LABELS)), sum(numbers.values()), trained


@pytest.mark.parametrize(
    ("name", "moments"), [("adamw", 2), ("lamb", 2), ("torch.optim:Rprop", 2), ("torch.optim:SGD", 0)]
)
def test_parameters_gradients_and_moments(files, name, moments):
    memory, numbers, trained = fixed_memory(files, "--optimizer", name)
    assert memory.host == 0
    assert 0 <= memory.device - 4 * numbers - 4 * (1 + moments) * trained <= 4 * 100  # a step counter per parameter


def test_the_optimizer_on_the_host_is_counted_apart(files):
    memory, numbers, trained = fixed_memory(files, "--optimize_on_cpu")
    assert memory.device == 4 * numbers + 4 * trained
    assert 0 <= memory.host - 4 * numbers - 12 * trained <= 4 * 100


# --- The border


def test_one_more_would_not_fit():
    for limit in range(0, 120, 7):
        size = largest_within(limit, fixed=20, per_sequence=9)
        assert size == 0 or 20 + 9 * size <= limit
        assert 20 + 9 * (size + 1) > limit


def test_the_row_is_the_border_of_what_was_counted(files):
    found = row(files, 128, limit=3_000_000)
    trainer, _ = make_trainer(files)
    kept = partial(micro_batch.kept_by_model, trainer)
    fixed = 2 * sum(kept(random_batch(1, 128, LABELS))) - sum(kept(random_batch(2, 128, LABELS)))
    assert found.size > 0
    assert fixed + found.size * found.per_sequence <= 3_000_000 < fixed + (found.size + 1) * found.per_sequence


@pytest.mark.parametrize("border", [0, 1, 2, 3, 7, 8, 9, 100, 127, 128])
def test_growing_and_bisecting_ends_at_the_border(border):
    tried = []

    def peak_of(count: int) -> int | None:
        tried.append(count)
        return 50 + 3 * count if count <= border else None

    assert largest_that_fits(peak_of, most=128) == (border, 50 + 3 * border if border else 0)
    assert len(tried) == len(set(tried)) <= 16


class Exhausted:
    """Stands for a trainer on a GPU with memory for four sequences."""

    world = SimpleNamespace(device="cuda:0")
    zeroed = 0
    size = 0

    def __init__(self):
        self.optimizer = self

    def zero_grad(self, set_to_none: bool) -> None:
        self.zeroed += set_to_none

    def train_step(self, batches, interrupted) -> None:
        self.size = batches[0].num_sequences
        if self.size > 4:
            raise torch.cuda.OutOfMemoryError("no memory")

    def apply(self) -> None:
        pass


def test_running_out_of_gpu_memory_ends_the_search(monkeypatch):
    emptied, trainer = [], Exhausted()
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 1000 + 70 * trainer.size)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(1))
    assert micro_batch.measure(trainer, 64, LABELS, Memory(1000, 0)) == Row(64, 4, 70)  # type: ignore[arg-type]
    assert trainer.zeroed == len(emptied) == 6  # 1, 2, 4, 8, 6, 5


def test_not_even_one():
    assert largest_that_fits(lambda count: None) == (0, 0)
    assert accumulation(32, 0) == 0


def test_accumulation_cuts_the_batch_evenly():
    assert [accumulation(32, size) for size in (1, 3, 12, 31, 32, 500)] == [32, 16, 4, 2, 1, 1]
    assert accumulation(7, 6) == 7


def test_the_limit(tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal: 900 kB\nMemFree:  10 kB\nMemAvailable:     300 kB\n")
    assert free_memory(tmp_path / "meminfo") == 300 * 1024
    with pytest.raises(UsageError, match="--memory_gb 0: cannot tell how much memory is free"):
        free_memory(tmp_path / "none")
    assert limit_of(1.5, Memory(10, 0), HERE) == 3 * GB // 2


# --- The commands


COMMANDS = pytest.mark.parametrize(
    ("module", "more"), [(run_squad, []), (run_glue, ["--task_name", "sts-b", "--data_dir", "/nowhere"])]
)


@COMMANDS
def test_the_commands_print_the_table(files, capsys, module, more):
    module.main(parse_args(module.Config, words(files, *more, "--find_micro_batch", "--memory_gb", "0.25")))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "computed for 0.25 GB on cpu: fp32, activations kept, --optimizer adamw"
    assert lines[1].startswith("parameters, gradients and moments: 0.00 GB")
    cells = [line.strip("| ").split(" | ") for line in lines[3:]]
    assert cells[0] == ["sequence length", "largest micro-batch", "MB per sequence", "accumulation steps of 32"]
    assert [int(c[0]) for c in cells[2:]] == [length for length in LENGTHS if length <= 128]
    for _, size, each, _ in cells[2:]:
        count, megabytes = int(size.replace(",", "")), float(each)
        assert count * (megabytes - 0.05) <= 256
        assert (count + 1) * (megabytes + 0.05) > 250  # the rest is what the model itself takes
    assert not (files / "out").exists()


def test_too_little_memory_is_a_row_of_nothing(files, capsys):
    run_squad.main(parse_args(run_squad.Config, words(files, "--find_micro_batch", "--memory_gb", "1e-6")))
    assert "| 64 | 0 |" in (out := capsys.readouterr().out)
    assert out.rstrip().endswith("| - |")


def test_the_model_must_be_named(files):
    with pytest.raises(UsageError, match="--config_file: needed, no checkpoint was given"):
        run_squad.main(parse_args(run_squad.Config, [*words(files)[2:], "--find_micro_batch"]))


def test_several_processes_are_refused(files, monkeypatch):
    monkeypatch.setattr(micro_batch, "join_world", lambda config: nullcontext(World(0, 0, 2, torch.device("cpu"))))
    with pytest.raises(UsageError, match="--find_micro_batch: started as 2 processes, expected one"):
        run_squad.main(parse_args(run_squad.Config, words(files, "--find_micro_batch")))


def test_a_short_model_has_a_row_of_its_own(files, capsys):
    config = json.loads((files / "config.json").read_text()) | {"max_position_embeddings": 40}
    (files / "config.json").write_text(json.dumps(config))
    run_squad.main(parse_args(run_squad.Config, words(files, "--find_micro_batch", "--memory_gb", "1")))
    assert capsys.readouterr().out.splitlines()[-1].startswith("| 40 |")
