"""Characters that cannot be in a text or in XML are passed over and counted; many of them are an error."""

import bz2
from collections import Counter

import pytest
from tqdm import tqdm

from bert.errors import UsageError
from bert.prepare.text.characters import decode, report
from bert.prepare.text.inputs import read_lines
from bert.prepare.text.sources import SourceConfig, plan_blocks, read_block
from bert.prepare.text.wikidump import read_articles

LINE = b"It rains in the city. It pours in the country, all day long.\n"  # 61 bytes
HEADER = b"<mediawiki><siteinfo></siteinfo>\n"


def page(text: bytes) -> bytes:
    return b"<page><title>T</title><ns>0</ns><revision><text>%s</text></revision></page>\n" % text


PAGES = [  # with the article and the number of characters that are passed over
    (b"It is fine.", "It is fine.", 0),
    (b"A bell\x08 or a \x00null\x0b.", "A bell or a null.", 3),
    (b"In the caf\xe9 it rains.", "In the caf it rains.", 1),
    (b"References &#8;to&#x0B;&#xFFFE;&#99999999; and &#233; it.", "References to and é it.", 4),
    (b"Surrogates \xed\xa0\x80 and \xef\xbf\xbf are not characters.", "Surrogates and are not characters.", 4),
    ("Tab\tand é, ก, 𝄞.".encode(), "Tab and é, ก, 𝄞.", 0),
    (b"The rest is read.", "The rest is read.", 0),
]


@pytest.mark.parametrize("kind", ["xml", "one stream", "multistream"])
def test_the_rest_of_a_dump_is_read(tmp_path, kind):
    pieces = [HEADER, *(page(text) for text, _, _ in PAGES), b"</mediawiki>"]
    data = b"".join(pieces) if kind != "multistream" else b"".join(map(bz2.compress, pieces))
    path = tmp_path / "dump"
    path.write_bytes(bz2.compress(data) if kind == "one stream" else data)
    invalid: Counter[str] = Counter()
    found = [" ".join(article.split()) for article in read_articles(path, 0, path.stat().st_size, invalid)]
    assert found == [article for _, article, _ in PAGES]
    assert invalid == {str(path): 12}


def test_broken_tags_are_an_error_with_and_without_invalid_characters(tmp_path):
    path = tmp_path / "dump.xml"
    for text in (b"It <b>is.", b"It\x08 <b>is.", b"It &is;\xff."):
        path.write_bytes(HEADER + page(b"Good\x01 one.") + page(text) + b"</mediawiki>")
        with pytest.raises(UsageError, match="broken XML in the page at byte"):
            list(read_articles(path, 0, 10**6))


@pytest.mark.parametrize("kind", ["text", "sentences", "jsonl"])
def test_a_few_invalid_bytes_in_a_long_text(tmp_path, kind, capsys):
    path = tmp_path / "a.txt"
    lines = [b"\xef\xbb\xbfFirst.\n", *[LINE] * 50, b"In the caf\xe9 it\xff rains.\n"]
    path.write_bytes(
        b"".join(b'{"text": "%s"}\n' % line.strip() for line in lines) if kind == "jsonl" else b"".join(lines)
    )
    config = SourceConfig(**{kind: [str(path)]})
    (block,) = plan_blocks(config, tmp_path, block_size=1 << 20, num_blocks=None, show_progress=False)
    invalid: Counter[str] = Counter()
    sentences = [sentence for document in read_block(block, config, invalid) for sentence in document]
    assert (sentences[0].strip("\ufeff"), sentences[-1]) == ("First.", "In the caf it rains.")
    report(invalid)
    assert capsys.readouterr().err == f"warning: 2 invalid characters passed over: {path} (2)\n"
    report(Counter())
    assert capsys.readouterr().err == ""


def test_lines_lose_a_byte_order_mark_and_a_few_invalid_bytes(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfFirst.\n" + LINE * 50 + b"caf\xe9\r\n\n\xff\n")
    invalid: Counter[str] = Counter()
    with tqdm(disable=True) as bar:
        (lines,) = read_lines(path, bar, invalid)
        assert (lines[0], lines[-3:], invalid) == ("First.", ["caf", "", ""], {str(path): 2})
        for data in (b"caf\xe9 au lait\n" * 500, "Öl.\n".encode("utf-16")):
            path.write_bytes(data)
            with pytest.raises(UsageError, match=f"--text {path}: not UTF-8 text"):
                list(read_lines(path, bar, Counter(), "--text"))


def test_what_is_not_utf8_is_refused_with_the_place():
    utf16 = "Öl.".encode("utf-16")
    few = utf16[:2] + LINE * 100  # few bytes are invalid, but the mark says UTF-16
    for data, place in ((b"caf\xe9 au lait", 3), (utf16, 0), (few, 0)):
        with pytest.raises(UsageError, match=rf"^a.txt: not UTF-8 text \(byte {place}\)$"):
            decode(data, "a.txt", 0, Counter())
