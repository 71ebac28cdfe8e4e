r"""MediaWiki markup → plain paragraphs.

One pass drops templates, tables, references and everything else that nests or is not prose. Plain links become their
labels, and mwparserfromhell reads only the lines that still have markup: on pages rich in templates this does 9 MB/s,
mwparserfromhell alone 1 MB/s. Time is proportional to the length of the page, whatever its content::

    plain_text("'''Ulm''' is a [[city]].<ref>Map.</ref>\n* On the [[Danube|river]].", frozenset())
    # "Ulm is a city.\n\nOn the river."
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any

from bert.errors import UsageError

# Sections without prose, in English and Chinese.
LEFT_OUT = re.compile(
    "bibliography|citations|external links|footnotes|further reading|general references|literature cited|notes"
    "|notes and references|references|references and notes|see also|sources|works cited"
    "|参考文献|参考资料|参见|外部链接|延伸阅读|注释|參考文獻|參考資料|參見|外部連結|延伸閱讀|註釋",
    re.IGNORECASE,
)
# Links to these are not prose, nor are links to files, known by their suffix: dumps do not list the aliases of "File".
NO_PAGES = frozenset(["category", "file", "image", "media", "分类", "分類", "文件", "檔案", "档案", "图像", "圖像"])
FILE = re.compile(r"\.(?:djvu|flac|gif|jpe?g|mid|mp3|og[agv]|pdf|png|stl|svg|tiff?|wav|web[mp]|xcf)$", re.IGNORECASE)
INTERWIKI = re.compile(r"[a-z]{2,12}(?:-[a-z]+)*:\S")

TOKEN = re.compile(  # every branch begins with a literal, which makes the search several times faster
    r"""\{(?P<template>\{) | \}(?P<end_template>\})
    | \{(?<![^\n:\ \t]\{)(?P<table>\|) | \|(?<![^\n\ \t]\|)(?P<end_table>\})(?!\}(?!\}))    # |}} ends a template
    | <(?P<html>(?i:table)\b[^<>]*>) | <(?P<end_html>/(?i:table)\s*>)
    | <(?P<comment>!--)
    | <(?P<tag>(?i:nowiki|categorytree|ce|chem|gallery|graph|hiero|imagemap|includeonly|indicator|inputbox|mapframe
        |maplink|math|pre|references|ref|score|section|source|syntaxhighlight|templatestyles|timeline)\b)
        (?P<attributes>[^<>]*)>
    """,
    re.VERBOSE,
)
HEADING = re.compile(r"^(={1,6})(.+?)\1[ \t]*$", re.MULTILINE)
EMPHASIS = re.compile(r"'{2,}")
APOSTROPHES = {4: "'", 6: "'"}  # what remains of a run of so many
VARIANTS = re.compile(r"-\{(?:[^{}|;:]*\|)?(?:[^{}|;:]*:)?([^{};]*)[^{}]*\}-")  # of Chinese; the first is kept
NAMESPACE_LINK = re.compile(r"\[\[([^][|:\n]*):[^][]*(?:\[[^][]*\][^][]*)*\]\]")
LINK = re.compile(r"\[\[(?:[^][|:<>{}\n]*\|)?([^][|:<>{}\n]+)\]\]")
APART = re.compile(r"</?(?:blockquote|br|center|dd|div|dl|dt|hr|li|ol|p|poem|ul)\b[^<>]*>", re.IGNORECASE)
INLINE = re.compile(
    r"</?(?:abbr|b|bdi|big|cite|code|del|em|font|i|ins|kbd|mark|noinclude|onlyinclude|q|s|samp|small|span|strong|sub|sup"
    r"|time|tt|u|var)\b[^<>]*>",
    re.IGNORECASE,
)
MOST_MARKUP = 100  # brackets in a line; more are broken markup, for which mwparserfromhell needs quadratic time
MARKUP = re.compile(r"\[\[|//|<")  # what mwparserfromhell is for
# What is left of broken markup, and of markup that is not read.
JUNK = re.compile(r"</?[a-zA-Z][^<>\n]*>|\[\[|\]\]|\{\{|\}\}|__[A-Z]+__|-{4,}")
MARKUP_CHARACTER = re.compile(r"[][{}<>'*#:;=|_~-]")
ENTITY = re.compile(r"&(?:#[0-9]+|#[xX][0-9a-fA-F]+|[a-zA-Z][a-zA-Z0-9]*);")
# What is left where a template was: "( ; born 1950)", "in 1999 , which".
HOLES = (
    (re.compile(r"([(（])[ ,;:，；：、]+"), r"\1"),
    (re.compile(r"(?<![ ,;:，；：、])[ ,;:，；：、]+([)）])"), r"\1"),
    (re.compile(r" ?(?:\(\)|（）)"), ""),
    (re.compile(r" +([,.])(?![^ \n])"), r"\1"),
    (re.compile(r",(?: ?,)+"), ","),
)


def plain_text(wikitext: str, dropped: Collection[str]) -> str:
    """Return the prose of a page: paragraphs and list items with blank lines between them; "" if there is none.

    Links to ``NO_PAGES`` and to the namespaces ``dropped`` (in lower case) are removed, and so are headings and the
    sections ``LEFT_OUT`` with their subsections. Raises UsageError where mwparserfromhell is missing.
    """
    text = "\n\n".join(_prose_sections(_drop_nested(wikitext)))
    text = EMPHASIS.sub(lambda quotes: APOSTROPHES.get(len(quotes[0]), ""), text)
    text = INLINE.sub("", APART.sub(" ", VARIANTS.sub(r"\1", text)))
    text = LINK.sub(r"\1", text)
    text = NAMESPACE_LINK.sub(lambda link: "" if _is_dropped(link[1], dropped) else link[0], text)
    return _tidy("\n".join(_paragraphs(text, dropped)))


def _drop_nested(text: str) -> str:
    """Drop templates, tables, comments and tags whose content is not prose; what is never closed stays."""
    cuts: list[tuple[int, int, str]] = []  # start, stop, replacement: the outermost so far, in order
    opened: list[tuple[str, int]] = []  # kind, start
    waiting: Counter[str] = Counter()  # kinds in opened
    unclosed: set[str] = set()  # tags that the rest of the page does not close, looked for once
    position = 0
    while match := TOKEN.search(text, position):
        start, position = match.span()
        kind = str(match.lastgroup)
        if kind in ("comment", "attributes"):
            if cut := _cut_tag(text, match, unclosed):
                cuts.append(cut)
                position = cut[1]
        elif not kind.startswith("end_"):
            opened.append((kind, start))
            waiting[kind] += 1
        elif waiting[kind := kind.removeprefix("end_")]:
            last = ""
            while last != kind:  # what was opened in between is never closed
                last, start = opened.pop()
                waiting[last] -= 1
            while cuts and cuts[-1][0] > start:
                cuts.pop()
            cuts.append((start, position, ""))
    kept, position = [], 0
    for start, stop, replacement in cuts:
        kept += [text[position:start], replacement]
        position = stop
    return "".join([*kept, text[position:]])


def _cut_tag(text: str, match: re.Match[str], unclosed: set[str]) -> tuple[int, int, str] | None:
    """Return (start, stop, replacement) of a comment or tag with its content; None if it is never closed."""
    tag = (match["tag"] or "").lower()
    if tag and match["attributes"].endswith("/"):
        return *match.span(), ""
    if tag in unclosed:
        return None
    end = re.compile(f"</{tag}\\s*>" if tag else "-->", re.IGNORECASE).search(text, match.end())
    if not end:
        unclosed.add(tag)
        return None
    content = text[match.end() : end.start()]
    literal = MARKUP_CHARACTER.sub(lambda character: f"&#{ord(character[0])};", content) if tag == "nowiki" else ""
    return match.start(), end.end(), literal


def _prose_sections(text: str) -> Iterator[str]:
    """Yield the text between the headings, except for the sections that are left out."""
    position = omitted = 0  # omitted: the level of the section being left out, 0 if none
    for heading in HEADING.finditer(text):
        if not omitted:
            yield text[position : heading.start()]
        level, title = len(heading[1]), heading[2].strip(" \t='")
        if not omitted or level <= omitted:
            omitted = level if LEFT_OUT.fullmatch(title) else 0
        position = heading.end()
    if not omitted:
        yield text[position:]


def _drop_markup(line: str, dropped: Collection[str]) -> str:
    try:
        from mwparserfromhell import parse
        from mwparserfromhell.parser import ParserError
    except ImportError as error:
        raise UsageError("mwparserfromhell is not installed, which dumps need: pip install '.[prepare]'") from error
    try:
        return "".join(_words(parse(line, skip_style_tags=True), dropped))
    except ParserError:  # a bug of the parser, not of the text
        return line


def _words(code: Any, dropped: Collection[str]) -> Iterator[str]:
    """Yield the text of mwparserfromhell's ``Wikicode``, with its entities unchanged."""
    for node in code.nodes:
        kind = type(node).__name__
        if kind == "Wikilink":
            label = _label(node, dropped)
            yield from _words(label, dropped) if label else ()
        elif kind == "ExternalLink":
            yield from _words(node.title, dropped) if node.title else ()
        elif kind == "Tag":
            yield from _words(node.contents, dropped) if node.contents else ()
        elif kind in ("Text", "HTMLEntity"):
            yield str(node)


def _label(link: Any, dropped: Collection[str]) -> Any:
    """Return what a reader sees of a link, None if nothing."""
    title = str(link.title).strip()
    prefix, colon, _ = title.partition(":")
    if colon and (_is_dropped(prefix, dropped) or FILE.search(title)):
        return None
    if link.text is None and INTERWIKI.match(title):
        return None
    return link.title if link.text is None else link.text


def _is_dropped(prefix: str, dropped: Collection[str]) -> bool:
    prefix = prefix.strip().lower()
    return prefix in NO_PAGES or prefix in dropped


def _paragraphs(text: str, dropped: Collection[str]) -> Iterator[str]:
    """Yield list items and runs of other lines."""
    lines: list[str] = []
    for line in text.split("\n"):
        is_item = line.startswith(("*", "#", ":", ";"))
        words = line.lstrip("*#:; \t")
        if is_item or not words:
            yield " ".join(lines)
            lines = []
        if words.startswith(("|", "{|")):  # of a table that is never closed
            continue
        if MARKUP.search(words) and words.count("[") + words.count("<") <= MOST_MARKUP:
            words = _drop_markup(words, dropped)
        if is_item:
            yield words
        else:
            lines.append(words)
    yield " ".join(lines)


def _tidy(text: str) -> str:
    """Remove leftover markup and white space from text with one paragraph a line."""
    text = ENTITY.sub(lambda entity: html.unescape(entity[0]), JUNK.sub("", text))
    paragraphs = (" ".join(line.split()) for line in text.split("\n"))
    text = "\n\n".join(filter(None, paragraphs))
    for pattern, replacement in HOLES:
        text = pattern.sub(replacement, text)
    return text
