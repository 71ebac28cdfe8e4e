"""Fine-tune BERT on a GLUE task, with the command line of Google's and the first PyTorch script of this name.

    python run_classifier.py --task_name=MRPC --do_train=true --do_eval=true --data_dir=download/glue/MRPC \\
        --bert_config_file=bert_config.json --vocab_file=vocab.txt --init_checkpoint=bert.pt --output_dir=results/MRPC
    python run_classifier.py --task_name=MRPC --do_predict=true --init_checkpoint=results/MRPC/pytorch_model.bin ...

It is run_glue.py, with all of its flags, and flags for TPUs that are accepted as long as they ask for none. The
defaults of the two scripts are run_glue.py's, but for --do_lower_case (true in one, false in the other): here the
vocabulary tells, or the checkpoint. The update is AdamW's; theirs, without bias correction, is --optimizer bertadam.
"""

from dataclasses import dataclass, field

import run_glue
from bert.config import flag, run_command, to_dict
from bert.errors import UsageError

CLOUD = "gs://"


@dataclass
class TpuConfig:
    use_tpu: bool = flag(False, "Not supported; accepted where false.")
    tpu_name: str | None = flag(None, "Not supported; accepted where None or empty.")
    tpu_zone: str | None = flag(None, "Not supported; accepted where None or empty.")
    gcp_project: str | None = flag(None, "Not supported; accepted where None or empty.")
    master: str | None = flag(None, "Not supported; accepted where None or empty.")
    num_tpu_cores: int = flag(8, "Accepted and ignored: it concerns TPUs alone.")
    iterations_per_loop: int = flag(1000, "Accepted and ignored: it concerns TPUs alone.")


@dataclass
class Config:
    glue: run_glue.Config
    tpu: TpuConfig = field(default_factory=TpuConfig)


def main(config: Config) -> None:
    """Run the command."""
    refuse_tpu(config.tpu)
    refuse_cloud_paths(config.glue)
    run_glue.main(config.glue)


def refuse_tpu(config: TpuConfig) -> None:
    """Raise UsageError where a flag asks for a TPU."""
    equivalent = "leave it out; --device says where to run, torchrun --nproc_per_node=N runs on several GPUs"
    if config.use_tpu:
        raise UsageError(f"--use_tpu true: TPUs are not supported, {equivalent}")
    for name in ("tpu_name", "tpu_zone", "gcp_project", "master"):
        value = getattr(config, name)
        if value not in (None, "", "None"):
            raise UsageError(f"--{name} {value}: TPUs are not supported, {equivalent}")


def refuse_cloud_paths(config: run_glue.Config) -> None:
    """Raise UsageError for a path in Google's cloud storage."""
    for name, value in to_dict(config).items():
        if isinstance(value, str) and value.startswith(CLOUD):
            raise UsageError(f"--{name} {value}: expected a local path; gsutil cp copies it, gcsfuse mounts its bucket")


if __name__ == "__main__":
    run_command(main, Config)
