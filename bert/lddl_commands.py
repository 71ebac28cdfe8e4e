"""LDDL's commands under their names, run by this suite's code, so that job files written for LDDL run unchanged.

    mpirun -np 34 preprocess_bert_pretrain --wikipedia wiki/source --sink pre --vocab-file vocab.txt --num-blocks 4096
    mpirun -np 32 balance_dask_output --indir pre --num-shards 4096

They differ from the commands of this suite in their defaults: MPI, and nine tenths of the documents.
"""

import os
import sys

from bert.config import run_command

RANK_VARIABLES = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK", "SLURM_PROCID")


def preprocess_bert_pretrain() -> None:
    """Run ``data/preprocess.py`` as the ranks of an MPI job, unless --schedule local is given."""
    from bert.prepare.preprocess import PreprocessConfig, preprocess

    sys.argv[1:1] = ["--schedule", "mpi", "--sample_ratio", "0.9"]  # flags of the command line come later and win
    run_command(preprocess, PreprocessConfig)


def balance_dask_output() -> None:
    """Run ``data/balance.py`` on the first rank; the others exit at once."""
    from bert.shards.balance import BalanceConfig, balance

    if first_rank():
        run_command(balance, BalanceConfig)


def download_wikipedia() -> None:
    """Fetch a Wikipedia dump and write its articles to --outdir/source, one a line."""
    from bert.download.wikipedia import WikipediaConfig, download_wikipedia

    if first_rank():
        run_command(download_wikipedia, WikipediaConfig)


def first_rank() -> bool:
    """Tell whether this process is rank 0 of a launcher, or was started without one."""
    return int(next((os.environ[name] for name in RANK_VARIABLES if name in os.environ), "0")) == 0
