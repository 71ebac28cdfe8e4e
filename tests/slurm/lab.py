"""A private two-node Slurm on this machine: munged, slurmctld and two slurmd, on loopback, in a folder of their own.

Each slurmd has its own UTS and mount namespace, so that `hostname` is the name of its node::

    with Lab.start() as lab:
        job = lab.submit("run.sub", "-N2", PHASE="1")
        assert lab.wait(job, "COMPLETED")
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

NODES = ("node1", "node2")
COMMANDS = ("munged", "slurmctld", "slurmd", "sbatch", "unshare")
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "DEADLINE")

CONFIGURATION = """
ClusterName=lab
SlurmctldHost=localhost(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=cred_expire=5,socket={root}/munge.socket
CredType=cred/munge
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmctldPort={ports[0]}
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool/%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd.%n.pid
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=1,sched_min_interval=0
JobAcctGatherType=jobacct_gather/none
PropagateResourceLimits=NONE
ReturnToService=1
MailProg=/bin/true
MinJobAge=600
KillWait=5
PlugStackConfig={root}/plugstack.conf
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
NODE = "NodeName={name} NodeAddr=127.0.0.1 NodeHostname={name} Port={port} CPUs=4 RealMemory=16000 State=UNKNOWN\n"


def missing() -> str | None:
    """Say why there can be no Slurm here, or None. Debian keeps the daemons in /usr/sbin."""
    if os.geteuid() != 0:
        return "not root: slurmd needs namespaces"
    absent = [name for name in COMMANDS if not shutil.which(name, path=_path())]
    return f"{', '.join(absent)} not installed (apt-get install slurm-wlm munge)" if absent else None


class Lab:
    """The running cluster and what a user does with it."""

    def __init__(self, root: Path):
        self.root = root
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SBATCH"))},
            "SLURM_CONF": str(root / "slurm.conf"),
            "PATH": _path(),
        }

    @classmethod
    @contextmanager
    def start(cls) -> Iterator[Lab]:
        """Start the daemons and stop exactly those, jobs first."""
        root = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))  # short: a socket's path has at most 107 bytes
        lab = cls(root)
        try:
            lab._configure()
            with ExitStack() as daemons:
                for name, command in lab._daemons().items():
                    daemons.enter_context(lab._daemon(name, command))
                    if name == "munged":
                        until((root / "munge.socket").exists, name, lab.output)
                until(lab.is_idle, "two idle nodes", lab.output)
                try:
                    yield lab
                finally:
                    lab.run("scancel", "--signal=KILL", "--full", "--user=root", check=False)
                    lab.run("scancel", "--user=root", check=False)
                    until(lambda: not lab.run("squeue", "-h"), "an empty queue")
        finally:
            shutil.rmtree(root, ignore_errors=True)

    def run(self, *command: str, check: bool = True, cwd: Path | None = None, **environment: str) -> str:
        """Run a command of Slurm and return what it printed."""
        done = subprocess.run(
            command, cwd=cwd, env={**self.environment, **environment}, capture_output=True, text=True, timeout=60
        )
        if check and done.returncode:
            raise AssertionError(f"{command}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def output(self) -> str:
        """Return what the daemons have printed lately."""
        return "\n".join(path.read_text()[-2000:] for path in sorted(self.root.glob("*.out")))

    def is_idle(self) -> bool:
        return self.run("sinfo", "-h", "-N", "-o", "%T", check=False).split() == ["idle"] * len(NODES)

    def submit(self, script: Path, *options: str, cwd: Path, **environment: object) -> str:
        """Submit a job from the directory ``cwd`` and return its number."""
        given = {name: str(value) for name, value in environment.items()}
        return self.run("sbatch", "--parsable", *options, str(script), cwd=cwd, **given).strip()

    def job(self, job: str) -> dict[str, str]:
        """Return what Slurm says of a job: JobState, Restarts, NodeList and so on."""
        words = self.run("scontrol", "--oneliner", "show", "job", job).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def seconds(self, job: str) -> int:
        """Return how long a job has run."""
        hours, minutes, seconds = self.job(job)["RunTime"].split(":")
        return int(hours) * 3600 + int(minutes) * 60 + int(seconds)

    def wait(self, job: str) -> str:
        """Wait until a job has ended and return its last state."""
        until(lambda: self.job(job)["JobState"] in ENDED, f"the end of job {job}", lambda: str(self.job(job)))
        return self.job(job)["JobState"]

    def _configure(self) -> None:
        for folder in ("state", "spool"):
            (self.root / folder).mkdir()
        ports = free_ports(1 + len(NODES))
        nodes = "".join(NODE.format(name=name, port=port) for name, port in zip(NODES, ports[1:], strict=True))
        (self.root / "slurm.conf").write_text(CONFIGURATION.format(root=self.root, ports=ports) + nodes)
        (self.root / "plugstack.conf").write_text("")
        (self.root / "hosts").write_text(f"127.0.0.1 localhost {' '.join(NODES)}\n")
        (self.root / "munge.key").write_bytes(os.urandom(128))
        (self.root / "munge.key").chmod(0o400)

    def _daemons(self) -> dict[str, list[str]]:
        root = self.root
        files = [f"--{name}-file={root}/munge.{name}" for name in ("key", "log", "pid", "seed")]
        in_namespace = 'hostname "$0"; mount --bind "$1" /etc/hosts; exec slurmd -D -N "$0"'
        enter = ["unshare", "--uts", "--mount", "sh", "-c", in_namespace]
        return {
            "munged": ["munged", "--foreground", "--force", f"--socket={root}/munge.socket", *files],
            "slurmctld": ["slurmctld", "-D", "-c"],
            **{node: [*enter, node, f"{root}/hosts"] for node in NODES},
        }

    @contextmanager
    def _daemon(self, name: str, command: list[str]) -> Iterator[None]:
        with (self.root / f"{name}.out").open("w") as out:
            process = subprocess.Popen(command, env=self.environment, stdout=out, stderr=out, start_new_session=True)
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def until(done: Callable[[], bool], what: str, explain: Callable[[], str] = lambda: "", seconds: float = 240) -> None:
    """Wait for ``done()``; an AssertionError that names ``what`` after too long."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}\n{explain()}"
        time.sleep(0.05)


def free_ports(count: int) -> list[int]:
    """Return ports of loopback that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _path() -> str:
    return f"{os.environ['PATH']}{os.pathsep}/usr/sbin{os.pathsep}/sbin"
