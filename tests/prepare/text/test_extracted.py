"""WikiExtractor's files, by their names and their content; the right texts are written out."""

import bz2
import json

import pytest

from bert.config import parse_args
from bert.errors import UsageError
from bert.prepare.pretraining_data import PretrainingDataConfig, create_pretraining_data
from bert.prepare.text.extracted import extracted_kind
from bert.prepare.text.sources import SourceConfig, plan_blocks, read_block
from bert.prepare.vocabulary import VocabularyConfig, train_vocabulary

# As WikiExtractor 3.0.6 writes them; older versions have no revid and a blank line after the title.
FIRST = """<doc id="12" revid="7" url="https://en.wikipedia.org/wiki?curid=12" title="AT&amp;T">
AT&amp;T

AT&amp;T is old. It is a company.
Its name has &lt;three&gt; letters
and a sign.

</doc>
"""
SECOND = """<doc id="13" url="https://en.wikipedia.org/wiki?curid=13" title="Ulm">
Ulm lies on a river. Ulm is old.
</doc>
<doc id="14" url="https://en.wikipedia.org/wiki?curid=14" title="Empty">
Empty

</doc>
"""
OBJECTS = [
    {
        "id": "12",
        "revid": "7",
        "url": "https://en.wikipedia.org/wiki?curid=12",
        "title": "Bonn",
        "text": "Bonn is old.",
    },
    {"id": "13", "revid": "8", "url": "https://en.wikipedia.org/wiki?curid=13", "title": "Ulm", "text": "Ulm. It is."},
]
DOCUMENTS = [
    ["AT&T is old.", "It is a company.", "Its name has <three> letters", "and a sign."],
    ["Ulm lies on a river.", "Ulm is old."],
]


@pytest.fixture
def extracted(tmp_path):
    folder = tmp_path / "extracted"
    (folder / "AA").mkdir(parents=True)
    (folder / "AB").mkdir()
    (folder / "AA" / "wiki_00").write_text(FIRST)
    (folder / "AB" / "wiki_00.bz2").write_bytes(bz2.compress(SECOND.encode()))
    return folder


def documents(tmp_path, block_size=1 << 20, **sources):
    config = SourceConfig(**sources)
    blocks = plan_blocks(config, tmp_path / "work", block_size=block_size, num_blocks=None, show_progress=False)
    return [document for block in blocks for document in read_block(block, config)]


@pytest.mark.parametrize("flag", ["text", "sentences", "jsonl", "wikipedia"])
def test_each_article_is_a_document_however_it_is_given(extracted, tmp_path, capsys, flag):
    given = str(extracted)
    for size in (1 << 20, 64):
        assert documents(tmp_path, size, **{flag: given if flag == "wikipedia" else [given]}) == DOCUMENTS
    assert "2 of 2 files are WikiExtractor's" in capsys.readouterr().out


def test_files_of_any_name_are_recognised_and_text_that_mentions_the_tag_is_not(extracted, tmp_path):
    (tmp_path / "all.txt").write_bytes(b"\xef\xbb\xbf" + FIRST.encode() + SECOND.encode())
    assert documents(tmp_path, text=[str(tmp_path / "all.txt")], documents="line") == DOCUMENTS
    (tmp_path / "plain.txt").write_text('The tag <doc id="1"> opens it.\n\n<document> is another.\n')
    assert documents(tmp_path, text=[str(tmp_path / "plain.txt")]) == [
        ['The tag <doc id="1"> opens it.'],
        ["<document> is another."],
    ]
    (extracted / "b.txt").write_text("Text.")  # where there are .txt files, only they are read, as always
    assert documents(tmp_path, text=[str(extracted)]) == [["Text."]]


def test_json_lines(tmp_path):
    path = tmp_path / "wiki_00"
    path.write_text("".join(json.dumps(each) + "\n" for each in OBJECTS))
    assert documents(tmp_path, text=[str(tmp_path)]) == [["Bonn is old."], ["Ulm.", "It is."]]
    path.write_text(json.dumps({"id": "1", "text": "Mine."}) + "\n")
    assert extracted_kind(path) is None


def test_commands_that_read_only_text_say_so_or_leave_out_the_tags(extracted, tmp_path, vocab_file):
    output = tmp_path / "v.txt"
    words = ["--text", str(extracted / "AA"), "--output", str(output), "--vocab-size", "100", "--min-frequency", "1"]
    train_vocabulary(parse_args(VocabularyConfig, words))
    pieces = output.read_text().split("\n")
    assert "company" in pieces and not {"doc", "id", "url", "curid", "title"} & set(pieces)
    (extracted / "AA" / "wiki_00").write_text(json.dumps(OBJECTS[0]))
    with pytest.raises(UsageError, match="wiki_00: WikiExtractor's JSON, expected its output without --json"):
        train_vocabulary(parse_args(VocabularyConfig, words))
    words = ["--input_file", str(extracted / "AA"), "--output_file", "o.hdf5", "--vocab_file", str(vocab_file)]
    with pytest.raises(UsageError, match="wiki_00: WikiExtractor's output, which data/preprocess.py --text reads"):
        create_pretraining_data(parse_args(PretrainingDataConfig, words))
