"""Fine-tune BERT on a GLUE task, with the command line of Google's and the first PyTorch script of this name.

    python run_classifier.py --task_name=MRPC --do_train=true --do_eval=true --data_dir=download/glue/MRPC \\
        --bert_config_file=bert_config.json --vocab_file=vocab.txt --init_checkpoint=bert.pt --output_dir=results/MRPC
    python run_classifier.py --task_name=MRPC --do_predict=true --init_checkpoint=results/MRPC/pytorch_model.bin ...

It is run_glue.py, whose flags include theirs. The defaults of the two scripts are run_glue.py's, but for
--do_lower_case (true in one, false in the other): here the vocabulary tells, or the checkpoint. The update is AdamW's;
theirs, without bias correction, is --optimizer bertadam. Flags for TPUs are accepted as long as they ask for none.
"""

import run_glue
from bert.config import run_command
from run_glue import Config


def main(config: Config) -> None:
    """Run the command."""
    run_glue.main(config)


if __name__ == "__main__":
    run_command(main, Config)
