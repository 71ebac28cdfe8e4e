"""Fine-tune BERT on a GLUE task, with the command line of Google's and the first PyTorch script of this name.

    python run_classifier.py --task_name=MRPC --do_train=true --do_eval=true --data_dir=download/glue/MRPC \\
        --bert_config_file=bert_config.json --vocab_file=vocab.txt --init_checkpoint=bert.pt --output_dir=results/MRPC
    python run_classifier.py --task_name=MRPC --do_predict=true --init_checkpoint=results/MRPC/pytorch_model.bin ...

It is run_glue.py, whose flags include theirs. Both scripts have run_glue.py's defaults, except --do_lower_case (true in
one, false in the other), which here follows from the vocabulary or the checkpoint. The update is AdamW's; theirs,
without bias correction, is --optimizer bertadam. TPU flags are accepted unless they request a TPU.
"""

import run_glue
from bert.config import run_command
from run_glue import Config


def main(config: Config) -> None:
    """Run the command."""
    run_glue.main(config)


if __name__ == "__main__":
    run_command(main, Config)
