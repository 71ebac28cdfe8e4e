"""Pre-training data against a second, literal implementation of the published algorithm, and the command's errors."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import h5py
import pytest

from bert.config import parse_args, run_command
from bert.log.progress import progress
from bert.prepare.instances import group_whole_words, shuffle
from bert.prepare.pretraining_data import (
    PretrainingDataConfig,
    create_pretraining_data,
    read_documents,
)
from bert.tokenization import BertTokenizer

ROOT = Path(__file__).resolve().parents[2]
VOCABULARY = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *(f"w{i}" for i in range(40)),
    *(f"##s{i}" for i in range(10)),
]


@pytest.fixture
def vocab_file(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(VOCABULARY) + "\n")
    return path


def write_corpus(path, seed, documents, sentences=12):
    """Write documents of random sentences, some words of which have two or three pieces."""
    rng = random.Random(seed)
    text = ""
    for _ in range(documents):
        for _ in range(rng.randint(1, sentences)):
            words = [
                f"w{rng.randrange(40)}" + "".join(f"s{rng.randrange(10)}" for _ in range(max(0, rng.randint(-4, 3))))
                for _ in range(rng.randint(1, 14))
            ]
            text += " ".join(words) + "\n"
        text += "\n"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def run(vocab_file, inputs, output, **flags):
    argv = ["--input_file", *map(str, inputs), f"--output_file={output}", f"--vocab_file={vocab_file}"]
    argv += ["--disable_progress_bar", *(f"--{name}={value}" for name, value in flags.items())]
    create_pretraining_data(parse_args(PretrainingDataConfig, argv))


def read(path):
    """Return the sequences of an HDF5 shard as (tokens, segments, positions, labels, is_random), unpadded."""
    with h5py.File(path) as file:
        columns = {name: dataset[:] for name, dataset in file.items()}
    rows = []
    for i in range(len(columns["input_ids"])):
        length = int(columns["input_mask"][i].sum())
        assert not columns["input_ids"][i, length:].any() and not columns["segment_ids"][i, length:].any()
        positions = [int(p) for p in columns["masked_lm_positions"][i] if p > 0]
        rows.append((
            [VOCABULARY[t] for t in columns["input_ids"][i, :length]],
            columns["segment_ids"][i, :length].tolist(),
            positions,
            [VOCABULARY[t] for t in columns["masked_lm_ids"][i, : len(positions)]],
            bool(columns["next_sentence_labels"][i]),
        ))  # fmt: skip
    return rows


# ---- the published algorithm, step by step on lists of strings ----


def literal_instances(paths, tokenizer, o):
    docs = [[]]
    for path in paths:
        for line in path.read_text().split("\n")[:-1]:
            if line.strip() == "":
                docs.append([])
            else:
                docs[-1].append(tokenizer.tokenize(line))
    docs = [d for d in docs if d != []]
    rng = random.Random(o.random_seed)
    rng.shuffle(docs)
    out = []
    for _ in range(o.dupe_factor):
        for number in range(len(docs)):
            out += literal_document(docs, number, rng, o)
    rng.shuffle(out)
    return out


def literal_document(docs, number, rng, o):
    room = o.max_seq_length - 3
    goal = room
    if rng.random() < o.short_seq_prob:
        goal = rng.randint(2, room)
    out, chunk, at = [], [], 0
    while at < len(docs[number]):
        chunk.append(docs[number][at])
        last = at + 1 == len(docs[number])
        if last or sum(map(len, chunk)) >= goal:
            cut = rng.randint(1, len(chunk) - 1) if len(chunk) > 1 else 1
            first = [piece for sentence in chunk[:cut] for piece in sentence]
            if len(chunk) == 1 or rng.random() < 0.5:
                for _ in range(10):
                    other = rng.randint(0, len(docs) - 1)
                    if other != number:
                        break
                is_random = other != number or o.label_same_document_random
                second = []
                for sentence in docs[other][rng.randint(0, len(docs[other]) - 1) :]:
                    second = second + sentence
                    if len(second) >= goal - len(first):
                        break
                at -= len(chunk) - cut
            else:
                is_random = False
                second = [piece for sentence in chunk[cut:] for piece in sentence]
            while len(first) + len(second) > room:
                longer = first if len(first) > len(second) else second
                longer.pop(0 if rng.random() < 0.5 else -1)
            tokens = ["[CLS]", *first, "[SEP]", *second, "[SEP]"]
            segments = [0] * (len(first) + 2) + [1] * (len(second) + 1)
            out.append((*literal_masks(tokens, rng, o, segments), is_random))
            chunk = []
        at += 1
    return out


def literal_masks(tokens, rng, o, segments):
    words = []
    for i, token in enumerate(tokens):
        if token not in ("[CLS]", "[SEP]"):
            if o.do_whole_word_mask and words and token[:2] == "##":
                words[-1] = [*words[-1], i]
            else:
                words.append([i])
    rng.shuffle(words)
    most = min(o.max_predictions_per_seq, max(1, round(len(tokens) * o.masked_lm_prob)))
    masked = list(tokens)
    chosen = []
    for word in words:
        if len(chosen) >= most:
            break
        if len(chosen) + len(word) > most:
            continue
        for i in word:
            if rng.random() < 0.8:
                masked[i] = "[MASK]"
            else:
                masked[i] = tokens[i] if rng.random() < 0.5 else VOCABULARY[rng.randint(0, len(VOCABULARY) - 1)]
            chosen.append(i)
    chosen.sort()
    return masked, segments, chosen, [tokens[i] for i in chosen]


DEFAULTS = {
    "max_seq_length": 48, "max_predictions_per_seq": 5, "masked_lm_prob": 0.15, "short_seq_prob": 0.1,
    "dupe_factor": 2, "random_seed": 12345, "do_whole_word_mask": False, "label_same_document_random": False,
}  # fmt: skip


@pytest.mark.parametrize("whole_words", [False, True])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"random_seed": 1, "dupe_factor": 1},
        {"random_seed": 2, "dupe_factor": 5, "short_seq_prob": 0.7},
        {"max_seq_length": 16, "max_predictions_per_seq": 13, "masked_lm_prob": 0.5},
        {"max_seq_length": 5, "max_predictions_per_seq": 1},
        {"max_seq_length": 512, "max_predictions_per_seq": 80},
    ],
)
def test_equals_the_published_algorithm(tmp_path, vocab_file, whole_words, changes):
    options = {**DEFAULTS, **changes, "do_whole_word_mask": whole_words}
    paths = [write_corpus(tmp_path / "text" / f"{i}.txt", i, documents=9) for i in range(2)]
    run(vocab_file, [tmp_path / "text"], tmp_path / "out.hdf5", **options)
    expected = literal_instances(paths, BertTokenizer(vocab_file), SimpleNamespace(**options))
    assert len(expected) > 18 * options["dupe_factor"] // 2
    assert read(tmp_path / "out.hdf5") == expected


@pytest.mark.parametrize("documents", [1, 2])
@pytest.mark.parametrize("as_google", [False, True])
def test_few_documents_equal_the_published_algorithm(tmp_path, vocab_file, documents, as_google):
    options = {**DEFAULTS, "dupe_factor": 8, "label_same_document_random": as_google}
    path = write_corpus(tmp_path / "text" / "a.txt", 5, documents, sentences=40)
    run(vocab_file, [path], tmp_path / "out.hdf5", **options)
    assert read(tmp_path / "out.hdf5") == literal_instances(
        [path], BertTokenizer(vocab_file), SimpleNamespace(**options)
    )


@pytest.mark.parametrize(("num_workers", "where"), [(0, "the text"), (1, "1 of 1 file, each a corpus of its own")])
def test_one_document_never_counts_as_random(tmp_path, vocab_file, capsys, num_workers, where):
    path = write_corpus(tmp_path / "text" / "a.txt", 3, documents=1, sentences=60)
    run(vocab_file, [path], tmp_path / "out.hdf5", num_workers=num_workers)
    rows = read(tmp_path / "out.hdf5")
    assert len(rows) >= 10 and not any(row[-1] for row in rows)
    assert f"warning: one document in {where}:" in capsys.readouterr().err


def test_workers_do_not_change_the_output(tmp_path, vocab_file):
    for i in range(3):
        write_corpus(tmp_path / "text" / f"{i}.txt", i, documents=4)
    outputs = {}
    for num_workers in (1, 2, 3):
        run(vocab_file, [tmp_path / "text"], tmp_path / "out.hdf5", num_workers=num_workers, dupe_factor=2)
        outputs[num_workers] = read(tmp_path / "out.hdf5")
    assert outputs[1] == outputs[2] == outputs[3]
    run(vocab_file, [tmp_path / "text"], tmp_path / "out.hdf5", num_workers=1, dupe_factor=2, random_seed=7)
    assert read(tmp_path / "out.hdf5") != outputs[1]


def test_each_file_is_its_own_corpus_with_workers(tmp_path, vocab_file):
    for name, word in (("a", "w1"), ("b", "w2")):
        (tmp_path / f"{name}.txt").write_text(f"{word} {word} {word}\n\n" * 20)
    run(vocab_file, [tmp_path / "a.txt", tmp_path / "b.txt"], tmp_path / "out.hdf5", num_workers=1, masked_lm_prob=0)
    rows = read(tmp_path / "out.hdf5")
    # A tenth of the single masked pieces becomes any piece, so the original is read back from the labels.
    for row, position in ((row, row[2][0]) for row in rows):
        row[0][position] = row[3][0]
    words = [{*row[0]} & {"w1", "w2"} for row in rows]
    assert words.count({"w1"}) == words.count({"w2"}) == 200 and len(words) == 400
    assert words != sorted(words, key=sorted), "the files are shuffled together"


def test_outputs_take_turns(tmp_path, vocab_file):
    path = write_corpus(tmp_path / "text" / "a.txt", 4, documents=8)
    run(vocab_file, [path], tmp_path / "all.hdf5")
    run(vocab_file, [path], f"{tmp_path}/x.hdf5,{tmp_path}/y.hdf5,{tmp_path}/new/z.hdf5")
    rows = read(tmp_path / "all.hdf5")
    for turn, name in enumerate(("x", "y", "new/z")):
        assert read(tmp_path / f"{name}.hdf5") == rows[turn::3]


def test_the_text_is_read_as_published(tmp_path, vocab_file):
    """Blank lines end documents, even with spaces in them; a line without a piece is no sentence and ends nothing."""
    paths = [tmp_path / "a.txt", tmp_path / "b.txt"]
    paths[0].write_text("\n\n  w1 \n\u200b\nw2\n \t \nw3 [SEP] w3s1\n\n\n\nw4", encoding="utf8")
    paths[1].write_text("w5\r\nw6\r\n\r\nw7")
    tokenizer = BertTokenizer(vocab_file)

    def words(**options):
        documents = read_documents(paths, tokenizer, progress(disable=True), **options)
        return [[" ".join(tokenizer.convert_ids_to_tokens(s)) for s in document] for document in documents]

    assert words() == [["w1", "w2"], ["w3 [SEP] w3 ##s1"], ["w4"], ["w5", "w6"], ["w7"]]
    assert words(join_files=True) == [["w1", "w2"], ["w3 [SEP] w3 ##s1"], ["w4", "w5", "w6"], ["w7"]]


def test_join_files_reaches_the_reader(tmp_path, vocab_file):
    (tmp_path / "a.txt").write_text("w1")
    (tmp_path / "b.txt").write_text("w2")
    for joined, is_random in ((False, True), (True, False)):
        run(vocab_file, [tmp_path / "a.txt", tmp_path / "b.txt"], tmp_path / "out.hdf5", join_files=joined)
        assert {row[-1] for row in read(tmp_path / "out.hdf5")} == {is_random}


def test_casing(tmp_path, vocab_file):
    vocab_file.write_text("\n".join([*VOCABULARY, "Abc", "abc"]))
    (tmp_path / "a.txt").write_text("Abc Abc Abc Abc\n\nAbc Abc Abc\n")
    for lower, piece in ((True, len(VOCABULARY) + 1), (False, len(VOCABULARY))):
        run(vocab_file, [tmp_path / "a.txt"], tmp_path / "out.hdf5", do_lower_case=lower)
        with h5py.File(tmp_path / "out.hdf5") as file:
            positions, labels = file["masked_lm_positions"][:], file["masked_lm_ids"][:]
        assert set(labels[positions > 0]) == {piece}


def test_group_whole_words():
    tokenizer = SimpleNamespace(cls_id=0, sep_id=1, is_continuation=[False, False, False, False, True, True])
    #           CLS  w  ##  ##  w SEP ## w SEP
    assert group_whole_words([0, 3, 4, 5, 3, 1, 4, 3, 1], tokenizer) == [[1, 2, 3], [4, 6], [7]]
    assert group_whole_words([0, 4, 5, 1, 1], tokenizer) == [[1, 2]]  # no word before it
    assert group_whole_words([0, 1, 1], tokenizer) == []


@pytest.mark.parametrize("length", [0, 1, 2, 3, 7, 64, 129])
def test_shuffle_draws_as_the_standard_library(length):
    ours, theirs = random.Random(length), random.Random(length)
    mine, expected = list(range(length)), list(range(length))
    shuffle(mine, ours)
    theirs.shuffle(expected)
    assert mine == expected and ours.getstate() == theirs.getstate()


def test_the_command_line_reports(tmp_path, vocab_file):
    """10 equal sentences of 4 pieces in documents of their own: sequences of 1 + 4 + 1 + 4 + 1 pieces, all random."""
    (tmp_path / "a.txt").write_text("w1 w2 w3 nope\n\n" * 10)
    argv = [sys.executable, "create_pretraining_data.py", f"--input_file={tmp_path}/a.txt", "--max-seq-length=22"]
    argv += [f"--output_file={tmp_path}/out.hdf5", f"--vocab_file={vocab_file}", "--dupe_factor=1"]
    argv += ["--short_seq_prob=0", "--max_predictions_per_seq=3"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
    assert f"{tmp_path}/out.hdf5: 10 sequences" in done.stdout
    assert "10 sequences of 11.0 pieces on average (50% of --max_seq_length), 100% random next" in done.stdout
    assert "do --vocab_file and --do_lower_case fit the text?" in done.stderr


def test_the_command_starts_without_torch():
    code = "import sys, create_pretraining_data; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def workers_of(process):
    """Wait for the command's two workers and return their process ids."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        workers = [int(pid) for pid in children if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()]
        if len(workers) == 2:
            return workers
        time.sleep(0.02)
    raise AssertionError(f"no two workers: {process.communicate()}")


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def long_run(tmp_path, vocab_file):
    """Start a command with two workers that would take far longer than the test."""
    for i in range(2):
        write_corpus(tmp_path / "text" / f"{i}.txt", i, documents=300)
    argv = [sys.executable, "create_pretraining_data.py", f"--input_file={tmp_path}/text", f"--vocab_file={vocab_file}"]
    argv += [f"--output_file={tmp_path}/out.hdf5", "--num_workers=2", "--dupe_factor=5000", "--disable_progress_bar"]
    process = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    yield process
    process.kill()
    process.communicate()


def test_workers_end_with_the_command(long_run):
    workers = workers_of(long_run)
    time.sleep(1)  # into their work
    long_run.kill()
    long_run.wait()
    deadline = time.monotonic() + 60
    while any(map(is_alive, workers)):
        assert time.monotonic() < deadline, "a worker outlives the command"
        time.sleep(0.05)


def test_a_killed_worker_ends_the_command(long_run, tmp_path):
    os.kill(workers_of(long_run)[0], signal.SIGKILL)
    _, shown = long_run.communicate(timeout=60)
    assert long_run.returncode == 2
    assert "error: --num_workers 2: a worker process was killed, probably for lack of memory" in shown
    assert not (tmp_path / "out.hdf5").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"input_file": "{tmp}/absent.txt"}, "--input_file {tmp}/absent.txt: no such file or directory"),
        ({"input_file": "{tmp}/*.nothing"}, "--input_file {tmp}/*.nothing: no such file or directory"),
        ({"input_file": "{tmp}/empty"}, "--input_file {tmp}/empty: no .txt file in this directory"),
        ({"input_file": ","}, "--input_file: names no file"),
        ({"input_file": "{tmp}/blank.txt"}, "--input_file {tmp}/blank.txt: no text in 1 file"),
        ({"input_file": "{tmp}/blank.txt", "num_workers": 1}, "--input_file {tmp}/blank.txt: no text in 1 file"),
        ({"input_file": "{tmp}/latin.txt"}, "--input_file {tmp}/latin.txt: not UTF-8 text"),
        ({"input_file": "{tmp}/latin.txt,{tmp}/a.txt", "num_workers": 2}, "{tmp}/latin.txt: not UTF-8 text"),
        ({"output_file": "{tmp}/out.xyz"}, "{tmp}/out.xyz"),
        ({"output_file": "{tmp}/empty.hdf5"}, "--output_file {tmp}/empty.hdf5: is a directory"),
        ({"output_file": "{tmp}/a.txt/out.hdf5"}, "--output_file {tmp}/a.txt/out.hdf5: "),
        ({"output_file": "{tmp}/o.hdf5,{tmp}/o.hdf5"}, "expected one or more different files"),
        ({"output_file": ","}, "--output_file ','"),
        ({"vocab_file": "{tmp}/absent.txt"}, "--vocab_file {tmp}/absent.txt: No such file"),
        ({"max_predictions_per_seq": 126}, "--max_predictions_per_seq 126: --max_seq_length 128 leaves room for 125"),
        ({"max_seq_length": 4}, "--max_seq_length: 4 is out of range"),
        ({"dupe_factor": 0}, "--dupe_factor: 0 is out of range"),
        ({"masked_lm_prob": 1.5}, "--masked_lm_prob: 1.5 is out of range"),
        ({"num_workers": -1}, "--num_workers: -1 is out of range"),
        ({"join_files": "true", "num_workers": 2}, "--join_files true: --num_workers 2"),
        (
            {"bert_model": "bert-base-cased", "do_lower_case": True},
            "--do_lower_case true, but --bert_model bert-base-cased has",
        ),
        ({"random_seed": "x"}, "--random_seed: 'x' is not a whole number"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(tmp_path, vocab_file, capsys, flags, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.hdf5").mkdir()
    (tmp_path / "a.txt").write_text("w1 w2\n\nw3\n")
    (tmp_path / "blank.txt").write_text(" \n\n\u200b\n", encoding="utf8")
    (tmp_path / "latin.txt").write_bytes(b"w1\ncaf\xe9\n")
    defaults = {"input_file": "{tmp}/a.txt", "output_file": "{tmp}/out.hdf5", "vocab_file": str(vocab_file)}
    argv = [f"--{name}={value}".format(tmp=tmp_path) for name, value in (defaults | flags).items()]
    with pytest.raises(SystemExit) as stopped:
        run_command(create_pretraining_data, PretrainingDataConfig, [*argv, "--disable_progress_bar"])
    shown = capsys.readouterr()
    assert stopped.value.code == 2 and shown.out == ""
    assert message.format(tmp=tmp_path) in shown.err and shown.err.count("\n") == 1
    assert not (tmp_path / "out.hdf5").exists()


def test_a_failure_leaves_the_old_output(tmp_path, vocab_file):
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    (tmp_path / "out.hdf5").write_text("precious")
    with pytest.raises(ValueError, match="not UTF-8"):
        run(vocab_file, [tmp_path / "latin.txt"], tmp_path / "out.hdf5")
    assert (tmp_path / "out.hdf5").read_text() == "precious"
    write_corpus(tmp_path / "text" / "a.txt", 1, documents=3)
    run(vocab_file, [tmp_path / "text"], tmp_path / "out.hdf5")
    assert len(read(tmp_path / "out.hdf5")) > 3
    assert sorted(p.name for p in tmp_path.iterdir() if p.suffix == ".hdf5" or "tmp" in p.name) == ["out.hdf5"]
