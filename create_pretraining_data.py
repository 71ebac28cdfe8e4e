"""Turn text into shards of masked next-sentence pairs for run_pretraining.py.

    python create_pretraining_data.py --input_file=corpus/ --output_file=train.hdf5 --vocab_file=vocab.txt \\
        --max_seq_length=128 --max_predictions_per_seq=20

The text holds one sentence a line and a blank line between documents.
"""

from bert.config import run_command
from bert.prepare.pretraining_data import PretrainingDataConfig, create_pretraining_data

if __name__ == "__main__":
    run_command(create_pretraining_data, PretrainingDataConfig)
