"""Convert TensorFlow's BERT to the state dict of the first PyTorch ports: the encoder, names without "bert.".

    python convert_tf_checkpoint_to_pytorch.py --tf_checkpoint_path uncased_L-12_H-768_A-12/bert_model.ckpt \\
        --bert_config_file uncased_L-12_H-768_A-12/bert_config.json --pytorch_dump_path pytorch_model.bin
    python convert_tf_checkpoint_to_pytorch.py CHECKPOINT CONFIG OUTPUT

As in the published command, the heads and the optimizer's state are dropped; convert_checkpoint.py keeps the heads.
"""

import sys

from bert.checkpoint.convert_tf import ConvertConfig, as_flags, convert
from bert.config import run_command

if __name__ == "__main__":
    run_command(convert, ConvertConfig, as_flags(sys.argv[1:]))
