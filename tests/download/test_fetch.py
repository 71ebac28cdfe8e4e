"""Fetching one file from a site that drops, stalls, redirects, lies and changes its mind; all on 127.0.0.1."""

import fcntl
import hashlib
import json
import random
import shutil
import socket
from collections import namedtuple
from email.utils import formatdate
from pathlib import Path
from time import time

import pytest
from flaky_site import chunked, cut, hang_up, redirect, running, stall, status, tag, without_length

from bert.download.fetch import Fetcher, TransferConfig, read_record
from bert.download.remote import FetchError, RemoteFile
from bert.download.web import _redirected
from bert.errors import UsageError

CONTENT = random.Random(0).randbytes(300_000)
OTHER = random.Random(1).randbytes(300_000)
MD5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def site():
    with running() as site:
        site.files["/a.bin"] = CONTENT
        yield site


@pytest.fixture
def other_site():
    with running() as site:
        site.files["/a.bin"] = CONTENT
        yield site


@pytest.fixture
def target(tmp_path):
    return tmp_path / "files" / "a.bin"


@pytest.fixture(autouse=True)
def waits(monkeypatch) -> list[float]:
    """The seconds that time.sleep was asked for, without jitter; nothing sleeps."""
    seconds: list[float] = []
    monkeypatch.setattr("time.sleep", seconds.append)
    monkeypatch.setattr("random.random", lambda: 0.0)
    return seconds


def fetcher(**flags) -> Fetcher:
    return Fetcher(TransferConfig(**{"timeout": 5.0, "retries": 3, "disable_progress_bar": True, **flags}))


def fetch(by: Fetcher, urls: list[str], target: Path, again: bool = False, **options) -> bool:
    return by.fetch(RemoteFile(target.name, tuple(urls), **options), target.parent, again)


def unused_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def only_the_file(target: Path) -> bool:
    return [path.name for path in target.parent.iterdir()] == [target.name]


# ---- a site that works


@pytest.mark.parametrize("checksum", [MD5, SHA256, f"sha1:{hashlib.sha1(CONTENT).hexdigest()}"])
def test_a_file_with_a_checksum(site, target, checksum):
    assert fetch(fetcher(), [f"{site.url}/a.bin"], target, checksum=checksum, size=len(CONTENT))
    assert target.read_bytes() == CONTENT
    assert only_the_file(target)


def test_a_file_without_a_checksum_leaves_its_own(site, target):
    assert fetch(fetcher(), [f"{site.url}/a.bin"], target)
    assert target.with_name("a.bin.sha256").read_text() == f"{SHA256.removeprefix('sha256:')}  a.bin\n"
    assert read_record(target) == SHA256


def test_an_empty_file(site, target):
    site.files["/a.bin"] = b""
    assert fetch(fetcher(), [f"{site.url}/a.bin"], target)
    assert target.read_bytes() == b""


def test_what_is_there_is_not_fetched_again(site, target):
    for options in ({"checksum": MD5}, {}):
        assert fetch(fetcher(), [f"{site.url}/a.bin"], target, **options)
        assert not fetch(fetcher(), [f"{site.url}/a.bin"], target, **options)
        target.unlink()
    assert len(site.requests) == 2


def test_a_file_put_there_by_hand_is_accepted_if_no_checksum_is_known(site, target, capsys):
    target.parent.mkdir()
    target.write_bytes(OTHER)
    assert not fetch(fetcher(), [f"{site.url}/a.bin"], target)
    assert "accepted as it is" in capsys.readouterr().out
    assert target.read_bytes() == OTHER and site.requests == []
    target.write_bytes(OTHER[1:])  # from then on damage is seen
    assert fetch(fetcher(), [f"{site.url}/a.bin"], target)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("options", [{"checksum": MD5}, {"size": 300_000}], ids=["checksum", "size"])
def test_a_damaged_file_is_named_and_replaced_by_a_good_one_only(site, target, capsys, options):
    target.parent.mkdir()
    target.write_bytes(CONTENT[:-1] if "size" in options else CONTENT[:-1] + b"?")
    damaged = target.read_bytes()
    with pytest.raises(FetchError):
        fetch(fetcher(), [f"{site.url}/missing"], target, **options)
    assert target.read_bytes() == damaged
    assert fetch(fetcher(), [f"{site.url}/a.bin"], target, **options)
    assert f"{target}: damaged or another version" in capsys.readouterr().err
    assert target.read_bytes() == CONTENT


def test_again_fetches_the_newest_version(site, target):
    fetch(fetcher(), [f"{site.url}/a.bin"], target)
    site.files["/a.bin"] = OTHER
    assert fetch(fetcher(), [f"{site.url}/a.bin"], target, again=True)
    assert target.read_bytes() == OTHER


# ---- interrupted


def test_a_dropped_connection_is_resumed(site, target, waits):
    site.plan["/a.bin"].append(cut(100_000))
    assert fetch(fetcher(), [f"{site.url}/a.bin"], target, checksum=MD5)
    assert target.read_bytes() == CONTENT and only_the_file(target)
    assert site.ranges("/a.bin") == [None, "bytes=100000-"]
    assert [headers["If-Range"] for _, headers in site.requests] == [None, tag(CONTENT)]
    assert [headers["Accept-Encoding"] for _, headers in site.requests] == ["identity"] * 2
    assert waits == [0.0]


def test_a_stalled_connection_is_given_up_and_resumed(site, target):
    site.plan["/a.bin"].append(stall(50_000))
    assert fetch(fetcher(timeout=0.2), [f"{site.url}/a.bin"], target)
    assert target.read_bytes() == CONTENT
    assert site.ranges("/a.bin") == [None, "bytes=50000-"]


def test_a_later_run_resumes_a_failed_one(site, target):
    site.plan["/a.bin"].extend([cut(100_000), status(500)])
    with pytest.raises(FetchError, match="HTTP 500"):
        fetch(fetcher(retries=1), [f"{site.url}/a.bin"], target, checksum=MD5)
    assert not target.exists()
    assert target.with_name("a.bin.part").read_bytes() == CONTENT[:100_000]
    site.requests.clear()
    assert fetch(fetcher(), [f"{site.url}/a.bin"], target, checksum=MD5)
    assert site.ranges("/a.bin") == ["bytes=100000-"]
    assert target.read_bytes() == CONTENT and only_the_file(target)


def test_a_later_run_first_asks_the_address_that_its_bytes_are_from(site, other_site, target):
    site.plan["/a.bin"].append(cut(100_000))
    urls = [f"{other_site.url}/a.bin", f"{site.url}/a.bin"]
    with pytest.raises(FetchError):
        fetch(fetcher(retries=0), urls[1:], target)
    assert fetch(fetcher(), urls, target)
    assert other_site.requests == [] and site.ranges("/a.bin") == [None, "bytes=100000-"]


def test_another_address_continues_a_file_that_has_a_checksum(site, other_site, target):
    urls = [f"{site.url}/a.bin", f"{other_site.url}/a.bin"]
    site.plan["/a.bin"].extend([cut(100_000), status(404)])
    other_site.files["/a.bin"] = CONTENT
    assert fetch(fetcher(), urls, target, checksum=MD5)
    assert target.read_bytes() == CONTENT
    assert [headers["If-Range"] for _, headers in site.requests] == [None, tag(CONTENT)]
    (headers,) = (headers for _, headers in other_site.requests)
    assert (headers["Range"], headers["If-Range"]) == ("bytes=100000-", None)


def test_another_address_starts_over_without_a_checksum(site, other_site, target):
    site.plan["/a.bin"].extend([cut(100_000), status(404)])
    other_site.files["/a.bin"] = OTHER
    assert fetch(fetcher(), [f"{site.url}/a.bin", f"{other_site.url}/a.bin"], target)
    assert target.read_bytes() == OTHER and other_site.ranges("/a.bin") == [None]


@pytest.mark.parametrize("length", [300_000, 300_001])
def test_halves_of_two_versions_do_not_pass_the_checksum(site, other_site, target, length):
    """The first address has an outdated file, as long as the right one, or longer."""
    site.files["/a.bin"] = (OTHER + b"x")[:length]
    site.plan["/a.bin"].extend([cut(100_000), status(404)])
    assert fetch(fetcher(), [f"{site.url}/a.bin", f"{other_site.url}/a.bin"], target, checksum=MD5)
    assert target.read_bytes() == CONTENT
    assert other_site.ranges("/a.bin") == ["bytes=100000-", None]


def test_all_bytes_there_but_not_yet_checked(site, target):
    """As a kill between the last byte and the check leaves it."""
    site.plan["/a.bin"].append(cut(100_000))
    with pytest.raises(FetchError):
        fetch(fetcher(retries=0), [f"{site.url}/a.bin"], target)
    target.with_name("a.bin.part").write_bytes(CONTENT)
    site.requests.clear()
    assert fetch(fetcher(), [f"{site.url}/a.bin"], target, checksum=MD5)
    assert target.read_bytes() == CONTENT and site.requests == []


def test_a_server_without_ranges_starts_over(site, target):
    site.with_ranges = False
    site.plan["/a.bin"].append(cut(100_000))
    assert fetch(fetcher(), [f"{site.url}/a.bin"], target)
    assert target.read_bytes() == CONTENT
    assert site.ranges("/a.bin") == [None, "bytes=100000-"]


def test_a_server_without_versions_starts_over(site, target):
    site.with_tags = False
    site.plan["/a.bin"].append(cut(100_000))
    assert fetch(fetcher(), [f"{site.url}/a.bin"], target)
    assert target.read_bytes() == CONTENT
    assert site.ranges("/a.bin") == [None, None]


def test_a_file_that_changed_meanwhile_is_not_joined_to_its_old_half(site, target):
    site.plan["/a.bin"].append(cut(100_000))
    with pytest.raises(FetchError):
        fetch(fetcher(retries=0), [f"{site.url}/a.bin"], target)
    site.files["/a.bin"] = OTHER
    assert fetch(fetcher(), [f"{site.url}/a.bin"], target)
    assert target.read_bytes() == OTHER


@pytest.mark.parametrize(
    ("version", "size"),
    [({"ETag": '"of the new one"'}, 300_000), ({}, 300_000), ({"ETag": tag(CONTENT)}, 300_001)],
    ids=["another version", "no version", "another size"],
)
def test_a_server_that_ignores_if_range_is_found_out(site, target, version, size):
    site.plan["/a.bin"].append(cut(100_000))

    def careless(handler):
        handler.head(206, Content_Length=200_000, Content_Range=f"bytes 100000-299999/{size}", **version)
        handler.wfile.write(OTHER[100_000:])

    site.plan["/a.bin"].append(careless)
    site.files["/a.bin"] = CONTENT
    assert fetch(fetcher(), [f"{site.url}/a.bin"], target)
    assert target.read_bytes() == CONTENT


def test_a_file_that_became_shorter(site, target):
    site.plan["/a.bin"].append(cut(100_000))
    with pytest.raises(FetchError):
        fetch(fetcher(retries=0), [f"{site.url}/a.bin"], target)
    site.plan["/a.bin"].append(status(416))
    site.files["/a.bin"] = OTHER[:50_000]
    assert fetch(fetcher(), [f"{site.url}/a.bin"], target)
    assert target.read_bytes() == OTHER[:50_000]


def test_a_damaged_half_is_fetched_again(site, target):
    site.plan["/a.bin"].append(cut(100_000))
    with pytest.raises(FetchError):
        fetch(fetcher(retries=0), [f"{site.url}/a.bin"], target, checksum=MD5)
    target.with_name("a.bin.part").write_bytes(OTHER[:100_000])
    assert fetch(fetcher(), [f"{site.url}/a.bin"], target, checksum=MD5)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("note", ["", "{", "[]", '{"url": 3}'])
def test_a_part_of_unknown_origin_is_not_used(site, target, note):
    target.parent.mkdir()
    target.with_name("a.bin.part").write_bytes(OTHER[:100])
    target.with_name("a.bin.part.json").write_text(note)
    assert fetch(fetcher(), [f"{site.url}/a.bin"], target)
    assert target.read_bytes() == CONTENT and site.ranges("/a.bin") == [None]


def test_weak_tags_are_no_proof(site, target):
    def weak(handler):
        handler.head(200, Content_Length=len(CONTENT), ETag='W/"1"')
        handler.wfile.write(CONTENT[:1000])

    site.plan["/a.bin"].append(weak)
    assert fetch(fetcher(), [f"{site.url}/a.bin"], target)
    assert site.ranges("/a.bin") == [None, None]


def test_a_connection_that_keeps_dropping_still_completes_the_file(site, target, monkeypatch):
    """Each attempt brings new bytes, so they may be more than --retries."""
    monkeypatch.setattr("bert.download.web.STEADY", 20_000)

    def next_part(handler):
        start = int((handler.headers.get("Range") or "bytes=0-")[6:-1])
        version = {"ETag": '"1"'}
        if start == 0:
            handler.head(200, Content_Length=len(CONTENT), **version)
        else:
            span = f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"
            handler.head(206, Content_Length=len(CONTENT) - start, Content_Range=span, **version)
        handler.wfile.write(CONTENT[start : start + 30_000])

    site.plan["/a.bin"].extend([next_part] * 20)
    assert fetch(fetcher(retries=1), [f"{site.url}/a.bin"], target, checksum=MD5)
    assert target.read_bytes() == CONTENT
    assert len(site.requests) == 10


def test_without_a_length_the_known_size_tells_the_end(site, target):
    site.plan["/a.bin"].extend([without_length(1000), without_length()])
    assert fetch(fetcher(), [f"{site.url}/a.bin"], target, size=len(CONTENT))
    assert target.read_bytes() == CONTENT


def test_more_bytes_than_there_should_be(site, target):
    site.plan["/a.bin"].append(chunked(CONTENT, b"more"))
    with pytest.raises(FetchError, match="300,004 bytes, expected 300,000"):
        fetch(fetcher(), [f"{site.url}/a.bin"], target, size=len(CONTENT))
    assert list(target.parent.iterdir()) == []


def test_chunks(site, target):
    site.plan["/a.bin"].extend([chunked(CONTENT[:1000], end=False), chunked(CONTENT[:1000], CONTENT[1000:])])
    assert fetch(fetcher(), [f"{site.url}/a.bin"], target)
    assert target.read_bytes() == CONTENT


# ---- refusals and pauses


def test_pauses_grow_and_retry_after_is_honoured(site, target, waits):
    site.plan["/a.bin"].extend([status(500), hang_up, status(503), status(429, Retry_After=90), status(502)])
    assert fetch(fetcher(retries=5), [f"{site.url}/a.bin"], target)
    assert waits == [0.0, 2.0, 4.0, 90.0, 16.0]


def test_jitter_adds_to_a_pause(site, target, waits, monkeypatch):
    site.plan["/a.bin"].extend([status(500)] * 3)
    monkeypatch.setattr("random.random", lambda: 0.75)
    assert fetch(fetcher(), [f"{site.url}/a.bin"], target)
    assert waits == [0.0, 2.75, 4.75]


def test_retry_after_as_a_date(site, target, waits):
    site.plan["/a.bin"].append(status(503, Retry_After=formatdate(time() + 100, usegmt=True)))
    assert fetch(fetcher(), [f"{site.url}/a.bin"], target)
    assert 90 < waits[0] <= 100


@pytest.mark.parametrize("after", ["soon", "-5"])
def test_a_meaningless_retry_after(site, target, after, waits):
    site.plan["/a.bin"].append(status(503, Retry_After=after))
    assert fetch(fetcher(), [f"{site.url}/a.bin"], target)
    assert waits == [0.0]


def test_a_server_that_asks_for_an_hour_is_left_for_the_next(site, other_site, target, waits):
    site.plan["/a.bin"].append(status(503, Retry_After=3600))
    assert fetch(fetcher(), [f"{site.url}/a.bin", f"{other_site.url}/a.bin"], target)
    assert waits == [] and len(site.requests) == len(other_site.requests) == 1


@pytest.mark.parametrize("code", [400, 401, 403, 404, 410, 501])
def test_a_refusal_is_not_repeated(site, other_site, target, code):
    site.plan["/a.bin"].extend([status(code)] * 2)
    assert fetch(fetcher(), [f"{site.url}/a.bin", f"{other_site.url}/a.bin"], target, checksum=MD5)
    assert len(site.requests) == 1 and target.read_bytes() == CONTENT


def test_a_wrong_checksum_on_the_first_mirror(site, other_site, target):
    site.files["/a.bin"] = OTHER
    assert fetch(fetcher(), [f"{site.url}/a.bin", f"{other_site.url}/a.bin"], target, checksum=MD5)
    assert target.read_bytes() == CONTENT and only_the_file(target)


def test_a_wrong_size_is_seen_before_a_byte_is_fetched(site, other_site, target):
    """So what is there of the right file is not lost to it."""
    site.files["/a.bin"] = OTHER[:-1]
    other_site.plan["/a.bin"].append(cut(1000))
    with pytest.raises(FetchError, match="299,999 bytes, expected 300,000"):
        fetch(fetcher(retries=0), [f"{other_site.url}/a.bin", f"{site.url}/a.bin"], target, size=300_000)
    assert target.with_name("a.bin.part").read_bytes() == CONTENT[:1000]


def test_nothing_wrong_gets_the_name(site, target):
    site.files["/a.bin"] = OTHER
    with pytest.raises(FetchError, match=r"md5 [0-9a-f]{32}, expected"):
        fetch(fetcher(), [f"{site.url}/a.bin"], target, checksum=MD5)
    assert list(target.parent.iterdir()) == []


def test_a_host_that_gave_no_connection_is_tried_once_from_then_on(site, tmp_path, waits):
    nowhere = f"http://127.0.0.1:{unused_port()}"
    one = fetcher(retries=2)
    assert fetch(one, [f"{nowhere}/a.bin", f"{site.url}/a.bin"], tmp_path / "1")
    assert waits == [0.0, 2.0]
    assert fetch(one, [f"{nowhere}/a.bin", f"{site.url}/a.bin"], tmp_path / "2")
    assert waits == [0.0, 2.0]


def test_the_error_lists_every_address_and_what_to_do(site, other_site, target):
    nowhere = f"http://127.0.0.1:{unused_port()}/a.bin"
    site.plan["/a.bin"].extend([status(503)] * 2)
    urls = [f"{site.url}/a.bin", f"{other_site.url}/b.bin", nowhere]
    with pytest.raises(FetchError) as caught:
        fetch(fetcher(retries=1), urls, target, checksum=MD5, size=300_000)
    assert str(caught.value).splitlines() == [
        "a.bin could not be fetched",
        f"  {urls[0]}: HTTP 503 Service Unavailable; 2 attempts",
        f"  {urls[1]}: HTTP 404 Not Found",
        f"  {nowhere}: no connection (Connection refused); 2 attempts",
        f"  by hand: save it as {target} and run this again (300,000 bytes, {MD5.replace(':', ' ')})",
    ]


# ---- redirects and proxies


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirects_are_followed(site, other_site, target, code):
    site.plan["/x"].append(redirect("/y", code))
    site.plan["/y"].append(redirect(f"{other_site.url}/a.bin", code))
    assert fetch(fetcher(), [f"{site.url}/x"], target)
    assert target.read_bytes() == CONTENT


def test_a_redirected_download_is_resumed(site, other_site, target):
    site.plan["/x"].extend([redirect(f"{other_site.url}/a.bin")] * 2)
    other_site.plan["/a.bin"].append(cut(100_000))
    assert fetch(fetcher(), [f"{site.url}/x"], target)
    assert other_site.ranges("/a.bin") == [None, "bytes=100000-"] and target.read_bytes() == CONTENT


def test_a_redirect_loop(site, target):
    site.plan["/x"].extend([redirect("/y")] * 50)
    site.plan["/y"].extend([redirect("/x")] * 50)
    with pytest.raises(FetchError, match="more than 10 redirects"):
        fetch(fetcher(), [f"{site.url}/x"], target)
    assert len(site.requests) == 11


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/a", "gopher:x"])
def test_only_the_web_is_followed(site, target, location):
    site.plan["/x"].append(redirect(location))
    with pytest.raises(FetchError, match="neither http nor https"):
        fetch(fetcher(), [f"{site.url}/x"], target)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/a", "a.bin", "http://"])
def test_only_the_web_is_asked(target, url):
    with pytest.raises(FetchError, match="neither http nor https"):
        fetch(fetcher(), [url], target)
    with pytest.raises(UsageError, match="--mirror"):
        fetcher(mirror=[url])


def test_https_is_not_left(monkeypatch):
    assert _redirected("https://a.org/x", "/y") == "https://a.org/y"
    assert _redirected("http://a.org/x", "https://b.org/") == "https://b.org/"
    with pytest.raises(FetchError, match="from https to http://b.org/"):
        _redirected("https://a.org/x", "http://b.org/")


def test_the_proxy_of_the_environment(site, target, monkeypatch):
    """A proxy is asked for the whole address."""
    monkeypatch.setenv("http_proxy", site.url.removeprefix("http://").replace("127", "user:p%40ss@127"))
    site.files["http://example.org/a.bin"] = CONTENT
    assert fetch(fetcher(), ["http://example.org/a.bin"], target, checksum=MD5)
    assert site.requests[0][1]["Proxy-Authorization"] == "Basic dXNlcjpwQHNz"  # user:p@ss
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    target.unlink()
    assert fetch(fetcher(), [f"{site.url}/a.bin"], target)
    assert site.paths() == ["http://example.org/a.bin", "/a.bin"]


def test_a_proxy_that_is_not_there(site, target, monkeypatch):
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{unused_port()}")
    with pytest.raises(FetchError, match="the proxy does not answer"):
        fetch(fetcher(retries=0), [f"{site.url}/a.bin"], target)


def test_mirrors_have_the_files_by_name(site):
    mirror = f"{site.url}/deep/"
    assert fetcher(mirror=[mirror, site.url]).on_mirrors("a.bin") == [f"{site.url}/deep/a.bin", f"{site.url}/a.bin"]
    assert fetcher().on_mirrors("a.bin") == []


# ---- the disk


def test_a_full_disk_is_noticed_before_the_transfer(site, target, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, 300_000))
    with pytest.raises(FetchError, match=f"{target}: 300,000 more bytes are needed, and the disk has 300,000 free"):
        fetch(fetcher(), [f"{site.url}/a.bin", f"{site.url}/a.bin"], target)
    assert len(site.requests) == 1  # another address would not help


def test_a_place_that_cannot_be_written(site, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FetchError, match="file/a.bin: "):
        fetch(fetcher(), [f"{site.url}/a.bin"], tmp_path / "file" / "a.bin")


def test_two_processes_do_not_write_one_part(site, target):
    target.parent.mkdir()
    with target.with_name("a.bin.part").open("w") as part:
        fcntl.flock(part, fcntl.LOCK_EX)
        with pytest.raises(FetchError, match="another process"):
            fetch(fetcher(), [f"{site.url}/a.bin"], target)
    assert fetch(fetcher(), [f"{site.url}/a.bin"], target)


def test_the_note_of_a_part_comes_before_its_bytes(site, target):
    noted = []

    def look(handler):
        handler.head(200, Content_Length=10, ETag='"1"')
        while not target.with_name("a.bin.part.json").exists():
            handler.site.over.wait(0.01)
        noted.append((target.with_name("a.bin.part.json").read_text(), target.with_name("a.bin.part").read_bytes()))
        handler.wfile.write(b"0123456789")

    site.plan["/a.bin"].append(look)
    fetch(fetcher(), [f"{site.url}/a.bin"], target)
    ((note, part),) = noted
    assert json.loads(note) == {"url": f"{site.url}/a.bin", "validator": '"1"', "size": 10} and part == b""
