"""Dumps made here, cut and damaged in many ways, and wiki markup with its plain text."""

import bz2
import random
import sys
from html import escape
from itertools import pairwise

import pytest

from bert.errors import UsageError
from bert.prepare.text.wikidump import is_multistream, next_stream, read_articles
from bert.prepare.text.wikitext import plain_text

HEADER = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" xml:lang="de">
  <siteinfo>
    <sitename>Wikipedia</sitename>
    <namespaces>
      <namespace key="0" case="first-letter" />
      <namespace key="1" case="first-letter">Diskussion</namespace>
      <namespace key="6" case="first-letter">Datei</namespace>
      <namespace key="14" case="first-letter">Kategorie</namespace>
    </namespaces>
  </siteinfo>
"""
FOOTER = "</mediawiki>\n"


def page(title, *texts, namespace=0, redirect="", model="wikitext"):
    """A page as in a dump; the last of several texts is the newest."""
    revisions = "".join(
        f"    <revision>\n      <id>7</id>\n      <model>{model}</model>\n"
        f'      <text bytes="9" xml:space="preserve">{escape(text, quote=False)}</text>\n    </revision>\n'
        for text in texts
    )
    target = f'    <redirect title="{redirect}" />\n' if redirect else ""
    head = f"    <title>{title}</title>\n    <ns>{namespace}</ns>\n    <id>7</id>\n"
    return f"  <page>\n{head}{target}{revisions}  </page>\n"


PAGES = [
    page(
        "Ulm",
        "'''Ulm''' liegt an der [[Donau]].{{Ort}}\n\nSie ist &lt;blau&gt;.\n[[Datei:Ulm.jpg|mini|Die [[Donau]].]]",
    ),
    page("Ulma", "#WEITERLEITUNG [[Ulm]]", redirect="Ulm"),
    page("Diskussion:Ulm", "Das ist falsch.", namespace=1),
    page("Bonn", "Bonn ist [[Stadt|groß]].\n[[Kategorie:Ort]]"),
    page("Leer", "{{Liste}}\n* [[Bonn]]\n* [[Ulm]]"),
    page("Old", "It was wrong.", "It is right."),
    page("Köln.js", "let x = 1.", model="javascript"),
    page("Old redirect", "#REDIRECT [[Ulm]]. So."),
    page("Gone", ""),
    page("Köln", "Köln liegt am <page> Rhein &amp; ist “alt”."),
    page("Thai", "ก" * 120),
]
ARTICLES = [
    "Ulm liegt an der Donau.\n\nSie ist <blau>.",
    "Bonn ist groß.",
    "It is right.",
    "Köln liegt am Rhein & ist “alt”.",
    "ก" * 120,
]


def write(path, kind):
    text = HEADER + "".join(PAGES) + FOOTER
    streams = [HEADER, *("".join(PAGES[n : n + 2]) for n in range(0, len(PAGES), 2)), FOOTER]
    if kind == "xml":
        path.write_text(text, encoding="utf8", newline="\n")
    elif kind == "one stream":
        path.write_bytes(bz2.compress(text.encode()))
    else:
        path.write_bytes(b"".join(bz2.compress(stream.encode()) for stream in streams))
    return path


KINDS = ["xml", "one stream", "multistream"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_article_comes_from_one_range_whatever_the_ranges(tmp_path, kind):
    path = write(tmp_path / "dump", kind)
    size = path.stat().st_size
    assert list(read_articles(path, 0, size)) == ARTICLES
    rng = random.Random(0)
    for number in (1, 2, 3, 10, 50):
        cuts = [0, *sorted(rng.choices(range(size), k=number)), size]
        assert [article for cut in pairwise(cuts) for article in read_articles(path, *cut)] == ARTICLES


def test_ranges_that_begin_at_pages(tmp_path):
    path = write(tmp_path / "a.xml", "xml")
    starts = [n for n in range(path.stat().st_size) if path.read_bytes().startswith(b"<page>", n)]
    assert len(starts) == len(PAGES)
    found = [list(read_articles(path, *cut)) for cut in pairwise([*starts, path.stat().st_size])]
    assert found == [ARTICLES[:1], [], [], ARTICLES[1:2], [], ARTICLES[2:3], [], [], [], ARTICLES[3:4], ARTICLES[4:]]


def test_streams_are_found_where_they_begin(tmp_path):
    parts = [bz2.compress(text.encode()) for text in ("header", "  <page>", "", "x" * 1000, FOOTER)]
    path = tmp_path / "a.bz2"
    path.write_bytes(b"".join(parts))
    starts = [sum(map(len, parts[:n])) for n in range(len(parts) + 1)]
    assert [next_stream(path, position) for position in range(starts[-1] + 2)] == [
        min(start for start in starts if start >= min(position, starts[-1])) for position in range(starts[-1] + 2)
    ]


def test_what_looks_like_the_beginning_of_a_stream_is_none(tmp_path, monkeypatch):
    """A stream begins only right after the end of another, even where the file is read in small parts."""
    monkeypatch.setattr("bert.prepare.text.wikidump.CHUNK", 64)
    path = tmp_path / "a.bz2"
    stream = bz2.compress(bytes(range(256)))
    noise = random.Random(0).randbytes(100) + b"BZh91AY&SY" + random.Random(1).randbytes(100)
    path.write_bytes(stream + noise + stream + stream)
    # The end of the first stream is followed by noise; between noise and the second stream no stream ends.
    second = len(stream) + len(noise) + len(stream)
    assert next_stream(path, 1) == second
    assert next_stream(path, second + 1) == path.stat().st_size


def test_multistream(tmp_path):
    assert [is_multistream(write(tmp_path / kind, kind)) for kind in KINDS] == [False, False, True]
    text = (HEADER + "".join(PAGES) + FOOTER).encode()
    middle = text.index(b"Bonn ist")
    cut = tmp_path / "cut.bz2"  # as pbzip2 does
    cut.write_bytes(bz2.compress(text[:middle]) + bz2.compress(text[middle:]))
    assert not is_multistream(cut)
    assert list(read_articles(cut, 0, cut.stat().st_size)) == ARTICLES
    only = tmp_path / "header.bz2"
    only.write_bytes(bz2.compress(HEADER.encode()) + bz2.compress(FOOTER.encode()))
    assert is_multistream(only)
    assert list(read_articles(only, 0, 10**6)) == []


def test_pages_longer_than_what_is_read_at_a_time(tmp_path, monkeypatch):
    for chunk in (1, 7, 64):
        monkeypatch.setattr("bert.prepare.text.wikidump.CHUNK", chunk)
        path = write(tmp_path / "a.xml", "xml")
        assert list(read_articles(path, 0, path.stat().st_size)) == ARTICLES
        path = write(tmp_path / "a.bz2", "multistream")
        assert list(read_articles(path, 0, path.stat().st_size)) == ARTICLES


def consume(path):
    return list(read_articles(path, 0, path.stat().st_size))


def test_damaged_files(tmp_path):
    path = tmp_path / "dump"
    packed = write(path, "multistream").read_bytes()
    path.write_bytes(packed[:-20])
    with pytest.raises(UsageError, match=r"dump: ends within the bz2 stream at byte \d+, the file is not complete"):
        consume(path)
    start = next_stream(path, 1000)
    path.write_bytes(packed[: start + 60] + bytes(10) + packed[start + 70 :])
    with pytest.raises(UsageError, match=f"dump: damaged bz2 stream at byte {start}$"):
        consume(path)
    path.write_bytes(packed + b"garbage")
    with pytest.raises(UsageError, match=f"dump: damaged bz2 stream at byte {len(packed)}$"):
        consume(path)
    text = write(path, "xml").read_bytes()
    place = text.index(b"Bonn ist")
    path.write_bytes(text[:place] + b"&wrong;" + text[place:])
    with pytest.raises(
        UsageError, match=rf"dump: broken XML in the page at byte {text.rindex(b'<page>', 0, place)} \("
    ):
        consume(path)
    path.write_bytes(text[:place])
    with pytest.raises(UsageError, match="dump: ends within a page, the file is not complete"):
        consume(path)
    for data in (b"Just text.", b"", bz2.compress(b"Just text."), b"<html><page></page></html>"):
        path.write_bytes(data)
        with pytest.raises(UsageError, match="dump: not a MediaWiki dump"):
            consume(path)


def test_entities_cannot_be_declared(tmp_path):
    path = tmp_path / "a.xml"
    declaration = '<!DOCTYPE mediawiki [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]>'
    path.write_text(declaration + HEADER + page("A", "It is.").replace("It is", "&b;") + FOOTER)
    with pytest.raises(UsageError, match="broken XML in the page at byte .*undefined entity"):
        consume(path)


def test_a_page_without_an_end_is_not_kept_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("bert.prepare.text.wikidump.LONGEST_PAGE", 1 << 20)
    path = tmp_path / "a.xml"
    path.write_text(HEADER + "<page>" + "x" * (2 << 20))
    with pytest.raises(UsageError, match="a.xml: a page of more than 1 MiB"):
        consume(path)


def test_without_mwparserfromhell(monkeypatch):
    monkeypatch.setitem(sys.modules, "mwparserfromhell", None)
    with pytest.raises(UsageError, match=r"mwparserfromhell is not installed.*pip install '\.\[prepare\]'"):
        plain_text("See [http://example.org this].", ())


MARKUP = {
    "emphasis": ("'''Ulm''' is ''a'' '''''city'''''. L''''Ulm'''", "Ulm is a city. L'Ulm"),
    "links": ("[[Ulm]] and [[Bonn (city)|Bonn]]s, [[A#B|c]].", "Ulm and Bonns, c."),
    "links with a colon": (
        "[[Star Trek: Voyager]], [[:Category:A|a]], [[wikt:ship|ship]].",
        "Star Trek: Voyager, a, ship.",
    ),
    "links to other languages": ("It is.\n\n[[de:Ulm]]\n[[zh-min-nan:Ulm]]", "It is."),
    "files": (
        "[[File:A.jpg|thumb|A [[b]] with [[c|d]] and\n[http://x.org e].]]It is[[Image:B.png|1px]] so.[[Bild:C d.SVG]]",
        "It is so.",
    ),
    "categories": ("It is.\n[[Category:A]]\n[[category: B|*]]", "It is."),
    "external links": (
        "See [http://x.org/?a=b the ''site''], [https://x.org], https://x.org/y and [//x.org z].",
        "See the site, and z.",
    ),
    "templates": ("A{{b|c={{d}}\n|e={{f|[[g]]|{{h}}}}}} is{{i}}.", "A is."),
    "holes of templates": (
        "A ({{b}}; {{c}}, born 1950) was ({{d}}) B {{e}}, in C ({{f}}).\n\n甲（{{g}}，{{h}}）是乙。",
        "A (born 1950) was B, in C.\n\n甲是乙。",
    ),
    "references": ('It<ref name="a">No, {{b}}.</ref> is<ref name=a /> so.<REF>No\n\nno.</REF > Yes.', "It is so. Yes."),
    "comments": ("It <!-- {{ [[ <ref> -->is.<!--\n\n-->", "It is."),
    "tables": (
        'It was.\n{| class="a"\n! b !! c\n|-\n| d || {{e|{{f}}}}\n|\n  {| \n  | g\n  |}\n| h\n|}\n'
        "It is.\n\n:{|\n| i\n|}",
        "It was.\n\nIt is.",
    ),
    "tables in templates": ("{{a|\n{|\n| b\n|}\n|c\n|}}It is.{{d\n|}}", "It is."),
    "tables of HTML": ("It is.<table a=b><tr><td>no<table><tr><td>no</table></td></tr></table> Yes.", "It is. Yes."),
    "mathematics and code": (
        "If <math>a_{{b}} < c</math> then.<gallery>\nFile:A.jpg|b\n</gallery>"
        "<syntaxhighlight lang=c>if (a)</syntaxhighlight>",
        "If then.",
    ),
    "tags": (
        "H<sub>2</sub>O is<br />a <span style='x'>wet</span> <i>thing</i>.<blockquote>So.</blockquote><hr>",
        "H2O is a wet thing. So.",
    ),
    "nowiki": ("<nowiki>[[a]] ''b'' {{c}} </nowiki> is l<nowiki/>'''d'''.", "[[a]] ''b'' {{c}} is ld."),
    "entities": ("A&nbsp;&ndash;&#32;B &amp;lt; AT&T &lt;b&gt; x&y=z; &#x41;", "A – B &lt; AT&T <b> x&y=z; A"),
    "magic words": ("__NOTOC__\nIt is.\n----\nSo.{{DEFAULTSORT:A}}", "It is. So."),
    "variants of Chinese": ("-{zh-hans:计算机; zh-hant:電腦}-和-{A|zh-cn:软件}-、-{乙}-。", "计算机和软件、乙。"),
    "paragraphs": (
        "One line\nand more.\n\n\nTwo.\n* Three.\n** Four.\nFive.\n: Six.\n; Seven : eight\n# Nine.",
        "One line and more.\n\nTwo.\n\nThree.\n\nFour.\n\nFive.\n\nSix.\n\nSeven : eight\n\nNine.",
    ),
    "headings": ("A.\n== B ==\nC.\n===D===\nE.\n== ''F'' == \nG = h.", "A.\n\nC.\n\nE.\n\nG = h."),
    "sections without prose": (
        "A.\n== Notes ==\nNo.\n=== Note ===\nNo.\n== History ==\nB.\n==== See also ====\nNo.\n=== C ===\nD.\n"
        "==External affairs==\nE.\n"
        "== 参考资料 ==\nNo.\n== REFERENCES ==\nNo.",
        "A.\n\nB.\n\nD.\n\nE.",
    ),
    "broken markup": (
        "It {{is [[so.\n\n{| a\n| b\n\nYes]] and <ref>no.\n\n<b>More</div>.",
        "It is so.\n\nYes and no.\n\nMore.",
    ),
}


@pytest.mark.parametrize("case", MARKUP)
def test_markup(case):
    text, expected = MARKUP[case]
    assert plain_text(text, ()) == expected


def test_names_of_namespaces():
    assert plain_text("Es ist.[[Fichier:A|b]] [[fichier : A|b [[c]]]] So.", {"fichier"}) == "Es ist. So."


def test_a_failure_of_the_parser_costs_its_line_only(monkeypatch):
    from mwparserfromhell.parser import ParserError

    def fail(*args, **kwargs):
        raise ParserError("of its own")

    monkeypatch.setattr("mwparserfromhell.parse", fail)
    assert plain_text("It is [http://x.org so].\n\nYes.", ()) == "It is [http://x.org so].\n\nYes."


HOSTILE = [
    "[[",
    "{{",
    "{|\n",
    "<ref>",
    "<!--",
    "<nowiki>",
    "<div ",
    "<a b='",
    "[http://a ",
    "[[a|",
    "[[File:a|",
    "''",
    "= a =\n",
]
HOSTILE += ["(", " ,", "<table", "-{", "&amp;", "{{a}}", "|}\n", "}}", "__", "* [[a:b]] <a>\n"]


@pytest.mark.parametrize("unit", HOSTILE, ids=[repr(unit) for unit in HOSTILE])
@pytest.mark.timeout(20)  # minutes to hours where a step is quadratic
def test_markup_without_end_takes_linear_time(unit):
    text = plain_text("It is. " + unit * (300_000 // len(unit)), ())
    assert text.startswith("It is.")
