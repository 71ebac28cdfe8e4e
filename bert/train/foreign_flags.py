"""Flags of other suites that say where to run: harmless values are accepted, others refused naming our equivalent.

Google's scripts take flags for TPUs and cloud storage; OneFlow's take a list of machines and start their own processes.
A command that accepts these flags first calls::

    refuse_foreign_flags(config.foreign, to_dict(config))

``docs/coming-from.md`` is the page for users.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bert.config import flag
from bert.distributed import read_launcher
from bert.errors import UsageError

CLOUD = "gs://"
NOTHING = (None, "", "None")


@dataclass
class ForeignFlags:
    use_tpu: bool = flag(False, "Google's: accepted where false.")
    tpu_name: str | None = flag(None, "Google's: accepted where None or empty.")
    tpu_zone: str | None = flag(None, "Google's: accepted where None or empty.")
    gcp_project: str | None = flag(None, "Google's: accepted where None or empty.")
    master: str | None = flag(None, "Google's: accepted where None or empty.")
    num_tpu_cores: int = flag(8, "Google's: accepted and ignored.")
    iterations_per_loop: int = flag(1000, "Google's: accepted and ignored.")
    node_num: int = flag(1, "OneFlow's: accepted where torchrun has started as many processes.", minimum=1)
    gpu_num_per_node: int = flag(1, "OneFlow's: accepted where torchrun has started as many processes.", minimum=1)
    node_list: str | None = flag(None, "OneFlow's: accepted beside --node_num; torchrun knows the machines.")


def refuse_foreign_flags(
    config: ForeignFlags, flags: Mapping[str, Any], environ: Mapping[str, str] = os.environ
) -> None:
    """Raise UsageError, naming our equivalent, for an unsupported value; ``flags`` are all of the command's."""
    _refuse_tpu(config)
    for name, value in flags.items():
        if isinstance(value, str) and value.startswith(CLOUD):
            raise UsageError(f"--{name} {value}: expected a local path; gsutil cp copies it, gcsfuse mounts its bucket")
    _refuse_other_size(config, environ)


def _refuse_tpu(config: ForeignFlags) -> None:
    equivalent = "leave it out; --device says where to run, torchrun --nproc_per_node=N runs on several GPUs"
    if config.use_tpu:
        raise UsageError(f"--use_tpu true: TPUs are not supported, {equivalent}")
    for name in ("tpu_name", "tpu_zone", "gcp_project", "master"):
        value = getattr(config, name)
        if value not in NOTHING:
            raise UsageError(f"--{name} {value}: TPUs are not supported, {equivalent}")


def _refuse_other_size(config: ForeignFlags, environ: Mapping[str, str]) -> None:
    """OneFlow's command starts its processes, torchrun starts ours: the two must agree on how many."""
    nodes, per_node = config.node_num, config.gpu_num_per_node
    size = read_launcher(environ)[2]
    if nodes * per_node in (1, size):
        return
    where = ""
    if nodes > 1:
        first = (config.node_list or "FIRST_NODE").split(",")[0].strip()
        where = f"--nnodes={nodes} --rdzv_backend=c10d --rdzv_endpoint={first}:29400 --rdzv_id=1 "
    raise UsageError(
        f"--node_num {nodes} --gpu_num_per_node {per_node}: {nodes * per_node} processes, but {size} started; "
        f"expected on every machine: torchrun {where}--nproc_per_node={per_node} {Path(sys.argv[0]).name} ..."
    )
