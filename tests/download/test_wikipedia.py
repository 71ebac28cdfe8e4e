"""From a dump on a site of 127.0.0.1 to text files with an article a line, restarted at will."""

import bz2
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from flaky_site import Site, running

from bert.config import parse_args, run_command
from bert.download import wikipedia
from bert.download.wikipedia import WikipediaConfig, download_wikipedia
from bert.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]
DUMP = "simplewiki-latest-pages-articles-multistream.xml.bz2"
STREAMS, PAGES = 12, 5

PAGE = """  <page>
    <title>Place {number}</title>
    <ns>0</ns>
    <id>{number}</id>
    <revision>
      <id>{number}</id>
      <model>wikitext</model>
      <format>text/x-wiki</format>
      <text bytes="100" xml:space="preserve">'''Place {number}''' is a village by the river {number}.

It has {number} houses and a bridge, which are older than the [[river {number}|river]] itself.</text>
    </revision>
  </page>
"""


def make_dump() -> bytes:
    """A multistream dump: the head, streams of pages, the tail."""
    pages = ("".join(PAGE.format(number=stream * PAGES + page) for page in range(PAGES)) for stream in range(STREAMS))
    head = '<mediawiki xml:lang="en">\n  <siteinfo>\n    <sitename>Wikipedia</sitename>\n  </siteinfo>\n'
    return b"".join(bz2.compress(text.encode()) for text in (head, *pages, "</mediawiki>\n"))


CONTENT = make_dump()
STEP = len(CONTENT) // 4


@pytest.fixture(autouse=True)
def published_addresses_lead_nowhere(monkeypatch):
    for name, value in {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def site():
    with running() as site:
        site.files[f"/{DUMP}"] = CONTENT
        yield site


def argv(site: Site, outdir: Path, step: int = STEP, workers: int = 1) -> list[str]:
    words = ["--outdir", str(outdir), "--language", "simple", "--extract-shard-size", str(step)]
    transfer = ["--mirror", site.url, "--retries", "0", "--disable_progress_bar"]
    return [*words, "--num-processes", str(workers), *transfer]


def run(site: Site, outdir: Path, **options: int) -> dict[str, str]:
    download_wikipedia(parse_args(WikipediaConfig, argv(site, outdir, **options)))
    return texts(outdir)


def texts(outdir: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in (outdir / "source" / "simple").glob("*.txt")}


def articles(files: dict[str, str]) -> list[str]:
    """The texts of all lines, in the order of the dump."""
    numbers = sorted(int(name.removesuffix(".txt")) for name in files)
    return [line.split(" ", 1)[1] for number in numbers for line in files[f"{number}.txt"].splitlines()]


def test_every_article_is_a_line(site, tmp_path):
    files = run(site, tmp_path)
    found = articles(files)
    assert len(found) == STREAMS * PAGES
    for number, text in enumerate(found):
        assert f"is a village by the river {number}." in text
        assert text.endswith(f"It has {number} houses and a bridge, which are older than the river itself.")
    lines = [line for text in files.values() for line in text.splitlines()]
    names = [line.split(" ", 1)[0] for line in lines]
    assert len(set(names)) == len(names) and all(name.startswith("wiki-") for name in names)
    assert files["0.txt"].startswith("wiki-0-0 ")


def test_the_text_depends_on_no_number_of_processes_or_files(site, tmp_path):
    one = run(site, tmp_path / "one")
    assert 3 <= len(one) <= 5
    assert run(site, tmp_path / "two", workers=2) == one
    assert articles(run(site, tmp_path / "many", step=1000)) == articles(one)
    assert articles(run(site, tmp_path / "single", step=1 << 30)) == articles(one)


def test_what_is_there_is_kept_and_what_is_missing_is_made(site, tmp_path):
    whole = run(site, tmp_path)
    source = tmp_path / "source" / "simple"
    (source / "1.txt").unlink()
    (source / ".4711.1.txt").write_text("half")
    before = {path.name: path.stat().st_ino for path in source.glob("[0-9]*.txt")}
    site.requests.clear()
    assert run(site, tmp_path) == whole
    after = {path.name: path.stat().st_ino for path in source.glob("[0-9]*.txt")}
    assert {name: after[name] for name in before} == before and site.requests == []
    assert not (source / ".4711.1.txt").exists()


def test_an_error_leaves_no_half_file(site, tmp_path, monkeypatch):
    def fail(*arguments):
        yield "one"
        raise UsageError("damaged")

    monkeypatch.setattr(wikipedia, "read_articles", fail)
    with pytest.raises(UsageError, match="damaged"):
        run(site, tmp_path)
    assert texts(tmp_path) == {}
    monkeypatch.undo()
    assert len(articles(run(site, tmp_path))) == STREAMS * PAGES


def test_files_of_two_dumps_or_sizes_are_not_mixed(site, tmp_path):
    run(site, tmp_path)
    with pytest.raises(UsageError, match="another --extract_shard_size"):
        run(site, tmp_path, step=STEP + 1)
    dump = tmp_path / DUMP
    dump.unlink()
    site.files[f"/{DUMP}"] = CONTENT + bz2.compress(b"\n")
    with pytest.raises(UsageError, match="extracted from another dump"):
        run(site, tmp_path)


def test_a_dump_put_there_by_hand(site, tmp_path):
    (tmp_path / DUMP).write_bytes(CONTENT)
    assert len(articles(run(site, tmp_path))) == STREAMS * PAGES
    assert site.requests == []


def test_a_dump_that_cannot_be_had_is_exit_code_1(site, tmp_path, capsys):
    site.files.clear()
    with pytest.raises(SystemExit) as end:
        run_command(download_wikipedia, WikipediaConfig, argv(site, tmp_path))
    assert end.value.code == 1
    assert f"by hand: save it as {tmp_path / DUMP}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--language", "../x"], "--language ../x: expected the code"),
        (["--extract_shard_size", "much"], "--extract_shard_size much: expected a size such as 512K, 4M or 1G"),
        (["--extract_shard_size", "0"], "--extract_shard_size 0: expected a size"),
        (["--num_workers", "-1"], "--num_workers"),
    ],
)
def test_bad_flags(tmp_path, capsys, words, message):
    with pytest.raises(SystemExit) as end:
        run_command(download_wikipedia, WikipediaConfig, ["--outdir", str(tmp_path / "out"), *words])
    assert end.value.code == 2 and message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_killed_run_is_completed_by_the_next(site, tmp_path):
    whole = run(site, tmp_path / "whole", step=500)
    outdir = tmp_path / "killed"
    command = [sys.executable, "-m", "bert.download.wikipedia", *argv(site, outdir, step=500)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 60
    while not texts(outdir):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert texts(outdir) == whole
