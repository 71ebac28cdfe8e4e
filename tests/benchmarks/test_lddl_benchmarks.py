"""The benchmarks against lddl, without it: this suite's own side, the tables, and the ratios by hand."""

from pathlib import Path

import pytest

from benchmarks import loader, preprocess
from benchmarks.side_by_side import median_ratio
from bert.errors import UsageError
from bert.tokenization import BertTokenizer


def test_the_median_ratio_is_taken_within_rounds():
    assert median_ratio([2.0, 9.0, 8.0], [1.0, 3.0, 2.0]) == 3.0


def test_an_epoch_of_this_suites_loader(tmp_path):
    config = loader.LoaderBenchmarkConfig(max_seq_length=32, bin_size=16, sequences=200, shards=2, batch_size=8)
    vocab_file = loader.write_random_vocabulary(tmp_path / "vocab.txt")
    tokenizer = BertTokenizer(vocab_file)
    loader.write_shards(config, tokenizer, tmp_path / "shards")
    result = loader.read_epoch(config, tokenizer, {"input_dir": str(tmp_path / "shards")})
    assert 180 < result["sequences"] <= 202
    assert 20 * result["sequences"] < result["tokens"] < 32 * result["sequences"]
    assert result["seconds"] > 0


def test_too_few_sequences_in_a_bin_are_refused(tmp_path):
    config = loader.LoaderBenchmarkConfig(max_seq_length=128, bin_size=8, sequences=64, shards=4)
    tokenizer = BertTokenizer(loader.write_random_vocabulary(tmp_path / "vocab.txt"))
    with pytest.raises(UsageError, match=r"--sequences 64: \d sequences in bin \d+, expected at least --shards 4"):
        loader.write_shards(config, tokenizer, tmp_path / "shards")


def test_the_report_of_the_loader(capsys):
    ours, theirs = ({"sequences": 800, "tokens": 8000, "seconds": seconds} for seconds in (0.5, 2.0))
    loader.report(loader.LoaderBenchmarkConfig(rounds=1), [(ours, theirs)])
    assert capsys.readouterr().out.splitlines() == [
        "up to 128 tokens, static masks, no bins, batches of 64, 2 workers, 1 round",
        "",
        "| loader | sequences/s | real tokens/s |",
        "|---|---:|---:|",
        "| this suite | 1,600 | 16,000 |",
        "| lddl.torch | 400 | 4,000 |",
        "",
        "this suite is faster by 4.00 x (sequences/s)",
    ]


def test_the_report_of_preparing(capsys):
    ours = preprocess.Result(2.0, 500_000_000, "")
    theirs = preprocess.Result(10.0, 2_000_000_000, "... Running the dask pipeline took 8.0 s")
    config = preprocess.PreprocessBenchmarkConfig(bin_size=32, rounds=1)
    preprocess.report(config, 20_000_000, [(ours, theirs)])
    assert capsys.readouterr().out.splitlines() == [
        "20.0 MB of text, up to 128 tokens, dynamic masks, bins of 32, 2 workers, 1 round",
        "",
        "| command | MB/s | peak memory, MB |",
        "|---|---:|---:|",
        "| this suite | 10.00 | 500 |",
        "| preprocess_bert_pretrain | 2.00 | 2,000 |",
        "",
        "this suite is faster by 5.0 x; 4.0 x compared with lddl's pipeline alone",
    ]


def test_the_command_of_this_suite_exists():
    command = preprocess.our_command(preprocess.PreprocessBenchmarkConfig(), Path("in"), Path("out"), [])
    assert Path(command[1]).is_file()


@pytest.mark.parametrize(
    ("main", "config"),
    [
        (loader.main, loader.LoaderBenchmarkConfig(lddl_python="/nowhere/python")),
        (preprocess.main, preprocess.PreprocessBenchmarkConfig(lddl_python="/nowhere/python")),
    ],
)
def test_a_missing_lddl_is_one_line(main, config):
    with pytest.raises(UsageError, match="--lddl_python '/nowhere/python': expected a Python with lddl"):
        main(config)
