"""run_classifier.py takes the published commands, and trains, scores and predicts as run_glue.py does."""

import pytest
from recipes.conftest import ROOT, run  # pyright: ignore[reportMissingImports]
from recipes.test_finetuning import files, glue, run_here  # noqa: F401

import run_classifier
import run_glue
from bert.errors import UsageError

EVERY_TPU_FLAG = [
    "--use_tpu=False",
    "--tpu_name=",
    "--tpu_zone=None",
    "--gcp_project=None",
    "--master=None",
    "--num_tpu_cores=8",
    "--iterations_per_loop=1000",
]
RESULTS = ("test_results.tsv", "predictions.json", "MRPC.tsv")


def published(files, output: str) -> list[str]:  # noqa: F811
    """A command as the published scripts have it."""
    return [
        "--task_name=MRPC",
        "--do_train=true",
        "--do_eval=True",
        "--do_predict=true",
        f"--data_dir={files / 'mrpc'}",
        f"--vocab_file={files / 'vocab.txt'}",
        f"--bert_config_file={files / 'config.json'}",
        "--max_seq_length=48",
        "--train_batch_size=8",
        "--learning_rate=1e-3",
        "--num_train_epochs=2.0",
        "--save_checkpoints_steps=1000",
        f"--output_dir={files / output}",
        f"--json_summary={files / output}.json",
        "--device=cpu",
        *EVERY_TPU_FLAG,
    ]


@pytest.mark.slow
def test_a_published_command_does_what_run_glue_does(files):  # noqa: F811
    run(published(files, "classifier"), script=ROOT / "run_classifier.py")
    run_here(run_glue, glue(files, "glue", do_train=True, do_eval=True, do_predict=True))
    for name in RESULTS:
        assert len((files / "classifier" / name).read_text().splitlines()) >= 7
        assert (files / "classifier" / name).read_bytes() == (files / "glue" / name).read_bytes()
    lines = dict(line.split(" = ") for line in (files / "classifier" / "eval_results.txt").read_text().splitlines())
    assert {"eval_accuracy", "eval_loss", "global_step", "loss"} <= lines.keys()
    assert lines["global_step"] == "12"  # 48 examples / 8, two epochs


def test_casing_is_the_vocabularys_unless_a_flag_says_it(files):  # noqa: F811
    words = [*published(files, "out"), "--max_steps=1"]
    run_here(run_classifier, words)
    again = ["--do_train=false", "--do_predict=false", f"--init_checkpoint={files / 'out' / 'pytorch_model.bin'}"]
    run_here(run_classifier, [*words, *again, "--do_lower_case=True"])
    with pytest.raises(UsageError, match="--do_lower_case false, but .* has do_lower_case true"):
        run_here(run_classifier, [*words, *again, "--do_lower_case=False"])


BAD = [
    ("--use_tpu=True", r"--use_tpu true: TPUs are not supported, leave it out; --device"),
    ("--tpu_name=grpc://10.0.0.2:8470", r"--tpu_name grpc://10.0.0.2:8470: TPUs are not supported"),
    ("--tpu_zone=us-central1-b", r"--tpu_zone us-central1-b: TPUs"),
    ("--gcp_project=mine", r"--gcp_project mine: TPUs"),
    ("--master=local", r"--master local: TPUs"),
    ("--init_checkpoint=gs://bucket/bert.ckpt", r"--init_checkpoint gs://bucket/bert.ckpt: expected a local path"),
    ("--output_dir=gs://bucket/out", r"--output_dir gs://bucket/out: expected a local path"),
]


@pytest.mark.parametrize(("word", "message"), BAD, ids=[word.partition("=")[0] for word, _ in BAD])
def test_what_needs_googles_cloud_is_refused(files, word, message):  # noqa: F811
    with pytest.raises(UsageError, match=message):
        run_here(run_classifier, [*published(files, "out"), word])
    assert not (files / "out").exists()
