"""One tokenizer from preparation to another format, as a user runs the commands."""

import json

import pytest

import convert_checkpoint
import run_pretraining
from bert.checkpoint.formats import read_checkpoint
from bert.checkpoint.open_model import ModelDescription, find_tokenizer
from bert.config import parse_args
from bert.errors import UsageError
from bert.prepare.pretraining_data import PretrainingDataConfig, create_pretraining_data
from bert.prepare.vocabulary import VocabularyConfig, train_vocabulary


@pytest.mark.parametrize(
    ("flags", "text", "expected"),
    [
        (["--strip_accents", "false"], "Möchte Öl", ["möchte", "öl"]),
        (["--pretokenized"], "世界, 世界,", ["世界,", "世界,"]),
        (["--tokenize_chinese_chars", "false"], "世界 möchte", ["世界", "mochte"]),
    ],
)
def test_how_text_is_cut_travels_to_every_later_command(tmp_path, flags, text, expected):
    """From the vocabulary through manifest and checkpoint to another format, without a flag on the way."""
    (tmp_path / "text.txt").write_text("\n\n".join(f"{text} .\n{text} {text} ." for _ in range(8)))
    vocab = tmp_path / "vocab.txt"
    argv = ["--text", str(tmp_path / "text.txt"), "--output", str(vocab), "--vocab_size", "60", *flags]
    train_vocabulary(parse_args(VocabularyConfig, argv))
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    sizes |= {"vocab_size": len(vocab.read_text().splitlines()), "max_position_embeddings": 32}
    (tmp_path / "config.json").write_text(json.dumps(sizes))
    argv = ["--input_file", tmp_path / "text.txt", "--output_file", tmp_path / "shards" / "a.hdf5"]
    argv += ["--vocab_file", vocab, "--max_seq_length", "32", "--max_predictions_per_seq", "5"]
    create_pretraining_data(parse_args(PretrainingDataConfig, list(map(str, argv))))
    (tmp_path / "tokenizer_config.json").unlink()  # the manifest knows
    settings = {"do_train": True, "input_dir": tmp_path / "shards", "output_dir": tmp_path / "out", "vocab_file": vocab}
    settings |= {"config_file": tmp_path / "config.json", "max_seq_length": 32, "max_predictions_per_seq": 5}
    settings |= {"max_steps": 1, "train_batch_size": 2, "disable_progress_bar": True, "device": "cpu"}
    run_pretraining.main(parse_args(run_pretraining.Config, [f"--{name}={value}" for name, value in settings.items()]))
    checkpoint = read_checkpoint(tmp_path / "out" / "ckpt_1.pt")
    tokenizer = find_tokenizer(ModelDescription(), checkpoint, "it")
    assert tokenizer is not None and tokenizer.tokenize(text) == expected and not tokenizer.guessed
    argv = ["--checkpoint", tmp_path / "out" / "ckpt_1.pt", "--to", "hf", "--output", tmp_path / "hf"]
    convert_checkpoint.main(parse_args(convert_checkpoint.Config, list(map(str, argv))))
    again = find_tokenizer(ModelDescription(), read_checkpoint(tmp_path / "hf"), "it")
    assert again is not None and again.identity == tokenizer.identity and again.tokenize(text) == expected
    wrong = flags[0].removeprefix("--")
    settings |= {wrong: wrong == "strip_accents" or wrong.startswith("tokenize"), "output_dir": tmp_path / "no"}
    with pytest.raises(UsageError, match=f"--{wrong} .*, but the manifest of .*shards has {wrong} "):
        run_pretraining.main(parse_args(run_pretraining.Config, [f"--{k}={v}" for k, v in settings.items()]))
    assert not (tmp_path / "no").exists()
