"""Google's and OneFlow's flags for places: accepted where harmless, else refused with the equivalent."""

import sys

import pytest

from bert.config import parse_args
from bert.errors import UsageError
from bert.train.foreign_flags import ForeignFlags, refuse_foreign_flags

EIGHT = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "3", "MASTER_ADDR": "a", "MASTER_PORT": "1"}


def check(words: str, environ: dict[str, str] | None = None, **flags: object) -> None:
    refuse_foreign_flags(parse_args(ForeignFlags, words.split()), flags, environ or {})


@pytest.mark.parametrize(
    ("words", "environ"),
    [
        ("", {}),
        ("", EIGHT),
        ("--use_tpu=False --tpu_name= --master=None --num_tpu_cores=8 --iterations_per_loop=100", {}),
        ("--node_num=1 --gpu_num_per_node=1", {}),
        ("--node_num=1 --gpu_num_per_node=8", EIGHT),
        ("--node_num=2 --node_list=10.0.0.1,10.0.0.2 --gpu_num_per_node=4", EIGHT),
    ],
)
def test_harmless_flags_are_accepted(words, environ):
    check(words, environ, output_dir="results")


def test_oneflows_machines_are_refused_with_torchruns(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/home/me/run_pretraining.py"])
    with pytest.raises(UsageError) as error:
        check("--node_num=2 --node_list=10.0.0.1,10.0.0.2 --gpu_num_per_node=8")
    assert str(error.value) == (
        "--node_num 2 --gpu_num_per_node 8: 16 processes, but 1 started; expected on every machine: "
        "torchrun --nnodes=2 --rdzv_backend=c10d --rdzv_endpoint=10.0.0.1:29400 --rdzv_id=1 "
        "--nproc_per_node=8 run_pretraining.py ..."
    )
    with pytest.raises(UsageError, match=r"4 processes, but 8 started; .*: torchrun --nproc_per_node=4 run_"):
        check("--gpu_num_per_node=4", EIGHT)


@pytest.mark.parametrize("name", ["input_dir", "init_checkpoint"])
def test_paths_in_the_cloud_are_refused(name):
    with pytest.raises(UsageError, match=f"--{name} gs://bucket/x: expected a local path"):
        check("", **{name: "gs://bucket/x"})


@pytest.mark.parametrize("name", ["run_pretraining", "run_squad", "run_glue"])
def test_commands_refuse_before_anything_else(name, tmp_path):
    command = __import__(name)
    words = {
        "run_pretraining": f"--input_dir {tmp_path} --config_file x --vocab_file x --max_seq_length 128",
        "run_squad": "",
        "run_glue": f"--task_name mrpc --data_dir {tmp_path}",
    }
    flags = [*words[name].split(), "--output_dir", "gs://bucket/out"]
    with pytest.raises(UsageError, match="--output_dir gs://bucket/out: expected a local path; gsutil cp"):
        command.main(parse_args(command.Config, flags))
