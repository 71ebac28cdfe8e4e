"""Start the ranks of a command as torchrun does, but fork them after the imports, which take most of a short run.

    python fork_ranks.py 2 run_pretraining.py --do_train ... + run_glue.py --do_eval ...

Commands between plus signs run one after another. The exit code is 0 if every rank ended with 0; a failing rank does
not stop the others. For tests in which the launcher is not the point.
"""

import gc
import os
import runpy
import socket
import sys

import scipy.stats  # noqa: F401  # the metrics of GLUE import both
import sklearn.metrics  # noqa: F401
import torch._dynamo  # noqa: F401  # PyTorch's optimizers import it

import run_glue  # noqa: F401
import run_multi_task  # noqa: F401
import run_pretraining  # noqa: F401
import run_squad  # noqa: F401


def main(ranks: int, commands: list[list[str]]) -> None:
    gc.freeze()  # else the ranks copy most of this process's memory when they collect
    statuses = []
    for command in commands:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        os.environ.update(WORLD_SIZE=str(ranks), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        children = []
        for rank in range(ranks):
            child = os.fork()
            if not child:
                os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
                sys.argv = command
                runpy.run_path(command[0], run_name="__main__")
                return
            children.append(child)
        statuses += [os.waitpid(child, 0)[1] for child in children]
    sys.exit(any(statuses))


if __name__ == "__main__":
    commands: list[list[str]] = [[]]
    for word in sys.argv[2:]:
        if word == "+":
            commands.append([])
        else:
            commands[-1].append(word)
    main(int(sys.argv[1]), commands)
