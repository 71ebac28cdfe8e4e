"""Sources cut into blocks of any size hold the same documents, each once; and the errors of bad sources."""

import bz2
import gzip
import io
import json
import lzma
import pickle
from pathlib import Path
from random import Random
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bert.config import parse_args
from bert.errors import UsageError
from bert.prepare.text.blocks import Block, Cut, FileSpan, pack
from bert.prepare.text.readers import SOURCE_KINDS
from bert.prepare.text.sources import SourceConfig, plan_blocks, read_block

WORDS = ["rain", "Grüße", "naïve", "雨", "今天下雨", "🙂", "fell", "x", "of", "Gold", "крепость"]
SIZES = [13, 100, 700, 4000, 1 << 30]


def sentence(rng: Random) -> str:
    return " ".join(rng.choices(WORDS, k=rng.randint(2, 12))).capitalize() + "."


def corpus(count: int = 30, giant: int = 40) -> list[list[str]]:
    """Documents of sentences; the one in the middle and the last are ``giant``."""
    rng = Random(count)
    documents = [[sentence(rng) for _ in range(rng.randint(1, 9))] for _ in range(count)]
    for place in (count // 2, -1):
        documents[place] = [sentence(rng) for _ in range(giant)]
    return documents


def plan(folder: Path, block_size: int | None = None, num_blocks: int | None = None, **sources) -> list[Block]:
    config = SourceConfig(**sources)
    return plan_blocks(config, folder / "work", block_size=block_size, num_blocks=num_blocks, show_progress=False)


def continues(block: Block) -> bool:
    """Whether the block begins within a document; it then holds nothing else."""
    assert block.spans[0].whole == (block.origin == block.index)
    return block.origin != block.index


def letters(sentences: list[str]) -> str:
    """The text without blanks, which are all that may differ in a document that was cut."""
    return "".join("".join(sentences).split())


def joined(blocks: list[Block], config: SourceConfig) -> list[str]:
    """Read all blocks, and join the parts of each document by the origins of the blocks."""
    documents: list[tuple[int, str]] = []  # block in which it begins, text
    for number, block in enumerate(blocks):
        assert block.index == number
        found = read_block(block, config)
        assert all(document and all(sentence.strip() for sentence in document) for document in found)
        assert len(found) <= 1 or not continues(block)
        for document in map(letters, found):
            if continues(block) and documents and documents[-1][0] == block.origin:
                document = documents.pop()[1] + document
            documents.append((block.origin, document))
    return [document for _, document in documents]


def assert_tiled(blocks: list[Block], path: Path, size: int) -> None:
    """The spans of a file, in order, cover it without gap or overlap."""
    spans = [span for block in blocks for span in block.spans if span.path == str(path)]
    assert [0, *(span.stop for span in spans)] == [*(span.start for span in spans), size]


def write_blank(path: Path, documents: list[list[str]]) -> None:
    """Hard-wrapped prose with blank lines of many kinds between documents."""
    rng = Random(1)
    gaps = ["\n\n", "\n \t\n", "\n\n\n\n", "\r\n\r\n", "\r\n \r\n\n"]
    text = "\ufeff"
    for document in documents:
        for word in " ".join(document).split():
            text += word + rng.choice(["\n", "\r\n", " ", " ", "  "])
        text = text.rstrip() + rng.choice(gaps)
    path.write_bytes(text.encode())


def write_lines(path: Path, documents: list[list[str]]) -> None:
    path.write_bytes("".join(" ".join(document) + "\n" * (1 + n % 3) for n, document in enumerate(documents)).encode())


def write_sentences(path: Path, documents: list[list[str]]) -> None:
    path.write_text("\n\n".join("\n".join(document) for document in documents), encoding="utf8")


def write_numbered(path: Path, documents: list[list[str]]) -> None:
    """LDDL's source: an identifier before each document."""
    path.write_text("\n".join(f"wiki-{n} {' '.join(d)}" for n, d in enumerate(documents)), encoding="utf8")


def write_json(path: Path, documents: list[list[str]]) -> None:
    lines = [json.dumps({"id": n, "text": "\n\n".join(d)}, ensure_ascii=n % 2 == 0) for n, d in enumerate(documents)]
    path.write_text("\n".join(lines), encoding="utf8")


def write_table(path: Path, documents: list[list[str]]) -> None:
    """The first groups of rows are small, the last is large."""
    texts = ["\n".join(document) for document in documents]
    table = pa.table({"id": range(len(texts)), "text": texts})
    with pq.ParquetWriter(path, table.schema) as writer:
        for start, count in ((0, 1), (1, 2), (3, 4), (7, len(texts))):
            writer.write_table(table.slice(start, count), row_group_size=1 << 20)


def pages(documents: list[list[str]]) -> list[str]:
    return [
        f"  <page>\n    <title>T{n}</title>\n    <ns>0</ns>\n    <id>{n + 1}</id>\n    <revision>\n      <id>7</id>\n"
        "      <model>wikitext</model>\n      <format>text/x-wiki</format>\n"
        f'      <text bytes="9" xml:space="preserve">{" ".join(document)}</text>\n    </revision>\n  </page>\n'
        for n, document in enumerate(documents)
    ]


HEAD = '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" xml:lang="en">\n  <siteinfo/>\n'


def write_dump(path: Path, documents: list[list[str]]) -> None:
    path.write_text(HEAD + "".join(pages(documents)) + "</mediawiki>\n", encoding="utf8")


def write_streams(path: Path, documents: list[list[str]]) -> None:
    """A multistream dump: a stream for the head, one for every three pages, and one for the end."""
    texts = pages(documents)
    parts = [HEAD, *("".join(texts[n : n + 3]) for n in range(0, len(texts), 3)), "</mediawiki>\n"]
    path.write_bytes(b"".join(bz2.compress(part.encode()) for part in parts))


KINDS = {
    "blank": ("corpus.txt", write_blank, {"text": ["{}"]}),
    "line": ("corpus.txt", write_lines, {"text": ["{}"], "documents": "line"}),
    "sentences": ("corpus.txt", write_sentences, {"sentences": ["{}"]}),
    "jsonl": ("corpus.jsonl", write_json, {"jsonl": ["{}"]}),
    "parquet": ("corpus.parquet", write_table, {"parquet": ["{}"]}),
    "lddl": ("corpus.txt", write_numbered, {"books": "{}"}),
    "dump": ("corpus.xml", write_dump, {"wikipedia": "{}"}),
    "dump streams": ("corpus.xml.bz2", write_streams, {"wikipedia": "{}"}),
}
NEVER_CUT = {"jsonl", "parquet", "dump", "dump streams"}  # a document longer than a block stays whole


def source(kind: str, folder: Path, documents: list[list[str]]) -> tuple[Path, dict]:
    name, write, flags = KINDS[kind]
    path = folder / name
    write(path, documents)
    return path, {k: [str(path)] if v == ["{}"] else str(path) if v == "{}" else v for k, v in flags.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_of_any_size_hold_each_document_once(tmp_path, kind):
    documents = corpus()
    path, flags = source(kind, tmp_path, documents)
    config = SourceConfig(**flags)
    expected = [letters(document) for document in documents]
    for size in SIZES[kind == "lddl" :]:  # identifiers are shorter than a block
        blocks = plan(tmp_path, size, **flags)
        assert joined(blocks, config) == expected, size
        assert_tiled(blocks, path, len(documents) if kind == "parquet" else path.stat().st_size)
        assert {span.kind for block in blocks for span in block.spans} == {kind}
        if kind in NEVER_CUT:
            assert not any(continues(block) for block in blocks)
        else:
            assert all(sum(span.stop - span.start for span in block.spans) < 2 * size for block in blocks)
        if size == 100 and kind not in NEVER_CUT:
            assert sum(continues(block) for block in blocks) > 20


@pytest.mark.parametrize("kind", KINDS)
def test_sentences_are_the_same_in_blocks_that_cut_no_document(tmp_path, kind):
    documents = [
        ["It was late.", "The rain fell on."],
        ["Nobody went out."],
        ["We stayed at home.", "So did they."],
    ] * 9
    _, flags = source(kind, tmp_path, documents)
    for size in (200, 1 << 20):
        blocks = plan(tmp_path, size, **flags)
        assert not any(continues(block) for block in blocks)
        found = [document for block in blocks for document in read_block(block, SourceConfig(**flags))]
        assert [[" ".join(s.split()) for s in document] for document in found] == documents
    assert len(blocks) == 1


def test_a_file_is_one_document_with_paragraphs(tmp_path):
    rng = Random(3)
    (tmp_path / "corpus/sub").mkdir(parents=True)
    texts = {}
    for number, count in enumerate([3, 200, 1, 2, 40, 1]):
        paragraphs = ["\n".join(sentence(rng) for _ in range(rng.randint(1, 3))) for _ in range(count)]
        path = tmp_path / f"corpus/{'sub/' * (number == 5)}{number}.txt"
        path.write_text("\n\n".join(paragraphs) + "\n", encoding="utf8")
        texts[path] = letters(paragraphs)
    flags = {"text": [str(tmp_path / "corpus")], "documents": "file"}
    for size in SIZES:
        blocks = plan(tmp_path, size, **flags)
        assert joined(blocks, SourceConfig(**flags)) == list(texts.values())
        for path in texts:
            assert_tiled(blocks, path, path.stat().st_size)
    assert len(blocks) == 1


def test_a_large_file_as_one_document_is_cut_between_paragraphs(tmp_path):
    (tmp_path / "a.txt").write_text("It is a line\nof text. Yes.\n\n" * 10)  # 28 bytes each
    blocks = plan(tmp_path, 60, text=[str(tmp_path)], documents="file")
    assert [(block.spans[0].start, block.spans[0].stop, block.origin) for block in blocks] == [
        (0, 84, 0), (84, 140, 0), (140, 196, 0), (196, 252, 0), (252, 280, 0),
    ]  # fmt: skip
    documents = read_block(blocks[1], SourceConfig(text=["a"], documents="file"))
    assert documents == [["It is a line of text.", "Yes.", "It is a line of text.", "Yes."]]


def test_hard_wrapped_prose_is_joined(tmp_path):
    (tmp_path / "a.txt").write_text("It was late. The\nrain fell\n  all night.\n\nNobody went.\n")
    (block,) = plan(tmp_path, 100, text=[str(tmp_path)])
    (first, second) = read_block(block, SourceConfig(text=[str(tmp_path)]))
    assert [" ".join(s.split()) for s in first] == ["It was late.", "The rain fell all night."]
    assert second == ["Nobody went."]


def test_where_a_giant_document_is_cut(tmp_path):
    """At the end of a line if there is one within a block's length, else at a blank, else between two characters."""
    lines = b"a b\n" + b"c d e f g\n" + b"h" * 14 + b" " + "é".encode() * 20 + b"\n\nend."  # 4 + 10 + 15 + 40 + ...
    (tmp_path / "a.txt").write_bytes(lines)
    blocks = plan(tmp_path, 11, text=[str(tmp_path / "a.txt")])
    assert [(block.spans[0].start, block.spans[0].stop, block.origin) for block in blocks] == [
        (0, 14, 0),  # from 11 on, the line ends at 14
        (14, 29, 0),  # from 22 on, no line ends before 33; a blank before 29
        (29, 33, 0),  # from 33 on, nothing before 44; 33 is between two characters
        (33, 45, 0),  # 44 is not
        (45, 55, 0),  # 55 is
        (55, 71, 0),  # from 66 on, the document ends at 71
        (71, 75, 6),
    ]  # fmt: skip


def test_the_words_of_a_cut_line_of_lddl_stay(tmp_path):
    (tmp_path / "0.txt").write_text("id-1 one two three four five six.\nid-2 seven.\n  id-3  eight.\nid-4\n")
    config = SourceConfig(common_crawl=str(tmp_path))
    blocks = plan(tmp_path, 17, common_crawl=str(tmp_path))
    assert joined(blocks, config) == ["onetwothreefourfivesix.", "seven.", "eight."]
    assert continues(blocks[1])


@pytest.mark.parametrize("below", ["", "source", "source/en", "en"])
def test_the_folders_of_lddl(tmp_path, below):
    for folder, text in ((below, "Right."), (f"{below}/.hidden", "Wrong.")):
        (tmp_path / "wikipedia" / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / "wikipedia" / folder / "0.txt").write_text(f"wiki-1 {text}\n")
    if "en" in below:
        (tmp_path / "wikipedia" / below.replace("en", "de")).mkdir()
        (tmp_path / "wikipedia" / below.replace("en", "de") / "0.txt").write_text("wiki-1 Falsch.\n")
    if "source" in below:
        (tmp_path / "wikipedia/wikicorpus-en.xml.bz2").write_bytes(b"LDDL keeps the dump here.")
    flags = {"wikipedia": str(tmp_path / "wikipedia")}
    assert [read_block(block, SourceConfig(**flags)) for block in plan(tmp_path, 100, **flags)] == [[["Right."]]]
    if below in ("", "source"):
        flags = {"books": str(tmp_path / "wikipedia")}
        assert [read_block(block, SourceConfig(**flags)) for block in plan(tmp_path, 100, **flags)] == [[["Right."]]]


def test_a_folder_of_dumps(tmp_path):
    """A dump of one stream is unpacked; the numbers of the pages may follow the suffix; other files do not count."""
    (tmp_path / "wiki").mkdir()
    write_streams(tmp_path / "wiki/enwiki-multistream1.xml-p1p9.bz2", [["First of all."]])
    write_dump(tmp_path / "plain.xml", [["Second."]])
    (tmp_path / "wiki/enwiki-single.xml.bz2").write_bytes(bz2.compress((tmp_path / "plain.xml").read_bytes()))
    write_dump(tmp_path / "wiki/enwiki-x.xml", [["Third."]])
    (tmp_path / "wiki/multistream-index.txt.bz2").write_bytes(bz2.compress(b"1:2:Title"))
    flags = {"wikipedia": str(tmp_path / "wiki")}
    (block,) = plan(tmp_path, 1 << 20, **flags)
    assert [(span.kind, Path(span.path).name) for span in block.spans] == [
        ("dump streams", "enwiki-multistream1.xml-p1p9.bz2"),
        ("dump", "enwiki-single.xml"),
        ("dump", "enwiki-x.xml"),
    ]
    assert read_block(block, SourceConfig(**flags)) == [
        [["First of all."], ["Second."], ["Third."]][n] for n in range(3)
    ]


@pytest.mark.parametrize(("suffix", "pack"), [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)])
def test_compressed_text_is_cut_like_plain_text(tmp_path, suffix, pack):
    (tmp_path / "plain").mkdir()
    (tmp_path / "packed").mkdir()
    write_blank(tmp_path / "plain/a.txt", corpus())
    (tmp_path / f"packed/a.txt.{suffix}").write_bytes(pack((tmp_path / "plain/a.txt").read_bytes()))
    plain = plan(tmp_path, 500, text=[str(tmp_path / "plain")])
    packed = plan(tmp_path, 500, text=[str(tmp_path / "packed")])
    assert [[(s.start, s.stop) for s in b.spans] for b in packed] == [
        [(s.start, s.stop) for s in b.spans] for b in plain
    ]
    config = SourceConfig(text=["a"])
    assert [read_block(block, config) for block in packed] == [read_block(block, config) for block in plain]


def test_sources_are_read_in_the_order_of_the_flags(tmp_path):
    flags = {}
    for kind in ("dump", "parquet", "jsonl", "sentences", "blank"):
        (tmp_path / kind).mkdir()
        path, more = source(kind, tmp_path / kind, [[f"From {kind} here."]])
        flags |= {key: [str(path.parent)] if isinstance(value, list) else value for key, value in more.items()}
    (block,) = plan(tmp_path, 1 << 20, **flags)
    documents = [[" ".join(s.split()) for s in document] for document in read_block(block, SourceConfig(**flags))]
    assert documents == [[f"From {kind} here."] for kind in ("blank", "sentences", "jsonl", "parquet", "dump")]


def span(path: str, start: int, size: int, whole: bool = True) -> FileSpan:
    return FileSpan("line", path, start, start + size, size, whole)


def test_spans_are_packed_in_order():
    """Of 100: a span joins if half of it has room; the rest of a document is alone; empty spans vanish."""
    spans = [span("a", 0, 40), span("b", 0, 0), span("c", 0, 40), span("d", 0, 40), span("e", 0, 30)]
    spans += [span("f", 0, 90), span("f", 90, 120, False), span("f", 210, 100, False), span("f", 310, 5)]
    spans += [span("g", 0, 10, True)]
    blocks = pack(spans, 100)
    assert [[(span.path, span.start, span.stop) for span in block.spans] for block in blocks] == [
        [("a", 0, 40), ("c", 0, 40), ("d", 0, 40)],  # 80, and half of the 40 of d
        [("e", 0, 30), ("f", 0, 90)],
        [("f", 90, 210)],
        [("f", 210, 310)],
        [("f", 310, 315), ("g", 0, 10)],
    ]
    assert [block.origin for block in blocks] == [0, 1, 1, 1, 4]


def test_neighbouring_parts_of_a_file_become_one_span():
    (block,) = pack([span("a", 0, 10), span("a", 10, 20), span("b", 30, 5)], 100)
    assert block.spans == (FileSpan("line", "a", 0, 30, 30, True), FileSpan("line", "b", 30, 35, 5, True))


def test_a_number_of_blocks(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text("It rains.\n\n" * 20_000)
    counts = [len(plan(tmp_path, num_blocks=number, text=[str(tmp_path)])) for number in (1, 3, 10)]
    assert counts == [1, 3, 10]
    assert len(plan(tmp_path, num_blocks=100, text=[str(tmp_path)])) == 10  # 660,000 bytes, 65,536 in each


def test_blocks_of_a_byte(tmp_path):
    (tmp_path / "a.txt").write_text("It rains.\n\n" * 20)
    flags = {"text": [str(tmp_path)]}
    assert joined(plan(tmp_path, 1, **flags), SourceConfig(**flags)) == ["Itrains."] * 20
    (tmp_path / "a.txt").write_text("雨🙂" * 10, encoding="utf8")
    assert len(plan(tmp_path, 1, **flags)) == 20  # no block is smaller than a character


def test_a_plan_depends_on_the_sources_alone(tmp_path, monkeypatch):
    write_blank(tmp_path / "a.txt", corpus())
    blocks = plan(tmp_path, 300, text=[str(tmp_path / "a.txt")])
    monkeypatch.chdir(tmp_path)
    assert plan(tmp_path, 300, text=["a.txt"]) == blocks == pickle.loads(pickle.dumps(blocks))


class CountingBytes(io.BytesIO):
    taken = 0

    def read(self, size=-1):
        data = super().read(size)
        self.taken += len(data)
        return data


def cuts_of(content: bytes, kind: str, block_size: int, monkeypatch) -> tuple[list[Cut], int]:
    """Cut a file of this content; returns its parts and how many bytes were read."""
    file = CountingBytes(content)
    monkeypatch.setattr(Path, "open", lambda path, mode: file)
    monkeypatch.setattr(Path, "stat", lambda path: SimpleNamespace(st_size=len(content)))
    return list(SOURCE_KINDS[kind].cuts(Path("/a"), block_size, "text")), file.taken


@pytest.mark.parametrize("kind", ["blank", "line", "file", "sentences", "jsonl", "lddl", "dump"])
def test_only_a_window_is_read_to_find_a_cut(kind, monkeypatch):
    content = (b"<page>\n" + b"It is a line. " * 10 + b"\n\n") * 28000  # 149 bytes each
    parts, taken = cuts_of(content, kind, 1 << 20, monkeypatch)
    assert len(parts) == 4
    assert 0 < taken < 500_000


def test_a_line_of_json_is_never_cut_and_its_end_is_sought_once(tmp_path, monkeypatch):
    lines = ['{"text": "One."}', json.dumps({"text": "word " * 500_000}), '{"text": "Two."}']
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    flags = {"jsonl": [str(tmp_path)]}
    blocks = plan(tmp_path, 40_000, **flags)
    assert [len(read_block(block, SourceConfig(**flags))) for block in blocks] == [2, 1]
    _, taken = cuts_of("\n".join(lines).encode(), "jsonl", 40_000, monkeypatch)
    assert taken < 4 * 2_500_000  # not once for each of the 62 cuts that fall in the line


def test_json_values(tmp_path):
    """No text, half a surrogate pair, a line separator within a line, and another key."""
    lines = [{"body": None}, {"body": "  "}, {"body": "A \ud83d b."}, {"body": "🙂\u2028 c."}]
    (tmp_path / "a.json").write_text("\n".join([*map(json.dumps, lines), json.dumps(lines[3], ensure_ascii=False)]))
    flags = {"jsonl": [str(tmp_path)], "text_key": "body"}
    documents = [d for block in plan(tmp_path, 100, **flags) for d in read_block(block, SourceConfig(**flags))]
    assert [letters(document) for document in documents] == ["A\ufffdb.", "🙂c.", "🙂c."]


def test_parquet_columns(tmp_path):
    """Dictionaries and missing values; a table that is larger than a block is read in parts."""
    texts = ["One.", None, "Two.", ""] * 50
    table = pa.table({"a": texts, "text": pa.array(texts).dictionary_encode(), "n": range(200)})
    pq.write_table(table, tmp_path / "a.parquet")
    flags = {"parquet": [str(tmp_path)], "text_key": "a"}
    for key in ("a", "text"):
        config = SourceConfig(parquet=[str(tmp_path)], text_key=key)
        blocks = plan(tmp_path, 20, **flags | {"text_key": key})
        assert len(blocks) > 3
        assert [document for block in blocks for document in read_block(block, config)] == [["One."], ["Two."]] * 50


def text_file(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return str(path)


def test_bad_plans(tmp_path):
    (tmp_path / "empty").mkdir()
    text = text_file(tmp_path / "a.txt", b"It rains.")
    nothing = text_file(tmp_path / "nothing.txt", b"")
    table = str(tmp_path / "a.parquet")
    pq.write_table(pa.table({"body": ["a"], "n": [1]}), table)
    for message, flags in {
        "no source: expected --text, ": {},
        f"--text {tmp_path}/missing: no such file or directory": {"text": [f"{tmp_path}/missing"]},
        f"--text {tmp_path}/empty: no .txt ": {"text": [f"{tmp_path}/empty"]},
        f"--wikipedia {tmp_path}/empty: no .xml ": {"wikipedia": f"{tmp_path}/empty"},
        f"--books {tmp_path}/empty: no .txt ": {"books": f"{tmp_path}/empty"},
        f"--jsonl {tmp_path}/empty: no .jsonl ": {"jsonl": [f"{tmp_path}/empty"]},
        f"--text {nothing}: the sources hold no text, every file is empty": {"text": [nothing]},
        f"{table}: no column --text_key text among body, n": {"parquet": [table]},
        f"{table}: --text_key n: expected a column of text, found int64": {"parquet": [table], "text_key": "n"},
        f"{text}: not a Parquet file (": {"parquet": [text]},
    }.items():
        with pytest.raises(UsageError) as error:
            plan(tmp_path, 100, **flags)
        assert str(error.value).startswith(message)
        assert "\n" not in str(error.value)
    for size, number in ((None, None), (10, 10)):
        with pytest.raises(UsageError, match="^--block_size and --num_blocks: expected one of them$"):
            plan(tmp_path, size, number, text=[text])


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("flags", [{"documents": "blank"}, {"documents": "line"}, {"documents": "file"}])
def test_text_that_is_not_utf8_names_the_byte_in_the_file(tmp_path, flags, mark):
    content = mark + b"It rains.\n\n" * 30
    path = text_file(tmp_path / "a.txt", content + b"caf\xe9 au lait\n")
    config = SourceConfig(text=[path], **flags)
    blocks = plan(tmp_path, 100, text=[path], **flags)
    with pytest.raises(UsageError) as error:
        for block in blocks:
            read_block(block, config)
    assert block is blocks[-1]
    assert str(error.value) == f"{path}: not UTF-8 text (byte {len(content) + 3})"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"text": "no end', "not JSON, expected one object a line (Unterminated string"),
        (b"[" * 100_000, "not JSON, expected one object a line (maximum recursion"),
        (b'["text"]', "expected a JSON object, found list"),
        (b'{"title": "a", "body": "b"}', "no --text_key text among title, body"),
        (b'{"text": 5}', "--text_key text: expected a text, found int"),
    ],
)
def test_a_bad_line_of_json_is_named_by_its_byte(tmp_path, line, message):
    content = b"\xef\xbb\xbf" + '{"text": "Grüße."}\r\n'.encode() * 20
    path = text_file(tmp_path / "a.jsonl", content + line + b'\n{"text": "More."}')
    config = SourceConfig(jsonl=[path])
    with pytest.raises(UsageError) as error:
        for block in plan(tmp_path, 150, jsonl=[path]):
            read_block(block, config)
    assert str(error.value).startswith(f"{path}: line at byte {len(content)}: {message}")


def test_files_that_change_under_the_work(tmp_path):
    path = text_file(tmp_path / "a.txt", b"It rains. " * 10)
    (block,) = plan(tmp_path, 100, text=[path])
    text_file(tmp_path / "a.txt", b"It rains.")
    with pytest.raises(UsageError, match=f"^{path}: has become shorter since the work began$"):
        read_block(block, SourceConfig(text=[path]))
    Path(path).unlink()
    with pytest.raises(UsageError, match=f"^{path}: No such file or directory$"):
        read_block(block, SourceConfig(text=[path]))


def test_a_damaged_or_shorter_table_is_an_error(tmp_path):
    path = tmp_path / "a.parquet"
    table = pa.table({"text": [f"Number {n} of many." for n in range(3000)]})
    pq.write_table(table, path)
    (block,) = plan(tmp_path, 1 << 20, parquet=[str(path)])
    pq.write_table(table.slice(0, 2999), path)
    with pytest.raises(UsageError, match=f"^{path}: has become shorter since the work began$"):
        read_block(block, SourceConfig(parquet=[str(path)]))
    pq.write_table(table, path)
    path.write_bytes(path.read_bytes()[:2000] + b"\xff" * 2000 + path.read_bytes()[4000:])
    with pytest.raises(UsageError, match=f"^{path}: damaged Parquet file"):
        read_block(block, SourceConfig(parquet=[str(path)]))


def test_the_flags():
    config = parse_args(SourceConfig, ["--text", "a", "b", "--wikipedia-lang=de", "--common-crawl", "c"])
    assert (config.text, config.language, config.common_crawl, config.jsonl) == (["a", "b"], "de", "c", None)
