"""Turn text into shards of next-sentence pairs for run_pretraining.py, on all cores of a machine or many nodes.

    python data/preprocess.py --text corpus --sink shards_128 --vocab-file vocab.txt --target-seq-length 128 --masking
    python data/preprocess.py --wikipedia enwiki-latest-pages-articles-multistream.xml.bz2 --sink shards_512 \\
        --vocab-file vocab.txt --target-seq-length 512 --bin-size 64 --masking

An interrupted run resumes when the same command is given again. On several nodes, start `dask scheduler`, and `dask
worker` on every node, then add --scheduler ADDRESS; or use mpirun -np 34 ... --schedule mpi.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a checkout without installation

from bert.config import run_command
from bert.prepare.preprocess import PreprocessConfig, preprocess

if __name__ == "__main__":
    run_command(preprocess, PreprocessConfig)
