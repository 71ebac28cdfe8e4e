"""Sentences and documents from text files of different layouts."""

import pytest

from bert.errors import UsageError
from data.split_text import read_documents, split_documents, write_split


def test_hard_wrapped_prose_is_joined_and_cut_into_sentences():
    text = 'It was late. The\nrain fell on Mr.\nBrown. "Go!" she said.\nNobody went.'
    assert split_documents(text) == [["It was late.", "The rain fell on Mr. Brown.", '"Go!" she said.', "Nobody went."]]


def test_one_sentence_a_line_stays_as_it_is():
    lines = ["Cass had risen early.", "This was nearly opposite!", 'He said "Gold."', "No one heard."]
    assert split_documents("\n".join(lines)) == [lines]


def test_the_language_decides_what_ends_a_sentence(tmp_path):
    (tmp_path / "a.txt").write_text("Am 3. Mai kam er.", encoding="utf8")
    assert list(read_documents(tmp_path, "de")) == [["Am 3. Mai kam er."]]
    with pytest.raises(UsageError, match="--language deutsch: expected an ISO 639 code"):
        list(read_documents(tmp_path, "deutsch"))


def test_long_blocks_are_documents_and_short_ones_are_paragraphs():
    article = "He ate. She sang. They met. Nobody knew."
    assert len(split_documents(f"{article}\n\n{article}")) == 2
    paragraphs = "\n\n".join(["One one. Two two."] * 75)  # 150 sentences in all
    assert [len(document) for document in split_documents(paragraphs)] == [100, 50]


def test_every_twentieth_document_is_held_out(tmp_path):
    documents = [[f"Sentence {n}."] for n in range(40)]
    assert write_split(documents, tmp_path, held_out=0.05) == (38, 2)
    assert (tmp_path / "eval/text.txt").read_text() == "Sentence 19.\n\nSentence 39.\n"
    assert (tmp_path / "train/text.txt").read_text().startswith("Sentence 0.\n\nSentence 1.\n")


def test_files_are_read_in_order_of_name(tmp_path):
    (tmp_path / "b.txt").write_text("Second.")
    (tmp_path / "a.txt").write_text("First.")
    (tmp_path / "c.md").write_text("Not text.")
    assert list(read_documents(tmp_path)) == [["First."], ["Second."]]


def test_bad_input_names_the_path(tmp_path):
    with pytest.raises(UsageError, match=f"--text {tmp_path}: no .txt file in this directory"):
        list(read_documents(tmp_path))
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(UsageError, match="latin.txt: not UTF-8 text .byte 3."):
        list(read_documents(tmp_path))
