"""The command data/download.py against a site on 127.0.0.1, given by --mirror; the published addresses lead nowhere."""

import hashlib
import io
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from flaky_site import Site, running, stall

from bert.config import parse_args, run_command
from bert.download.catalog import CATALOG, DATA_SETS, GROUPS, load_catalog
from bert.download.datasets import DownloadConfig, choose, download
from bert.download.remote import is_web_address

ROOT = Path(__file__).resolve().parents[2]
WWM = "wwm_cased_L-24_H-1024_A-16"  # weights whose checksums are not published
NOWHERE = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9", "no_proxy": "127.0.0.1"}


@pytest.fixture(autouse=True)
def published_addresses_lead_nowhere(monkeypatch):
    for name, value in NOWHERE.items():
        monkeypatch.setenv(name, value)
        monkeypatch.setenv(name.upper(), value)


@pytest.fixture
def site():
    with running() as site:
        yield site


@pytest.fixture
def no_checksums(monkeypatch):
    """The tests' files are not the published ones."""
    for name, each in DATA_SETS.items():
        files = tuple(replace(file, checksum=None, size=None) for file in each.files)
        members = dict.fromkeys(each.members)
        monkeypatch.setitem(DATA_SETS, name, replace(each, files=files, members=members))


def zipped(entries: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def weights(name: str = WWM, config: bytes = b"{}") -> bytes:
    content = {file: file.encode() for file in DATA_SETS[WWM].members} | {"bert_config.json": config}
    return zipped({f"{name}/{file}": data for file, data in content.items()})


def cola(train: bytes = b"train\n") -> bytes:
    files = {"train.tsv": train, "dev.tsv": b"dev\n", "test.tsv": b"test\n", "original/x": b""}
    return zipped({f"CoLA/{name}": content for name, content in files.items()})


def run(site: Site, output: Path, *names: str, **flags: str) -> int:
    """Run the command in this process; returns its exit code."""
    argv = ["--dataset", *names, f"--output={output}", f"--mirror={site.url}", "--retries=0"]
    argv += ["--disable_progress_bar", *(f"--{name}={value}" for name, value in flags.items())]
    try:
        run_command(download, DownloadConfig, argv)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def states(out: str) -> dict[str, str]:
    rows = [re.split(r" {2,}", line) for line in out.splitlines()]
    return {row[0]: row[1] for row in rows if len(row) == 3}


# ---- the catalog


def test_names_on_a_mirror_are_unambiguous():
    files = {file for each in DATA_SETS.values() for file in each.files}
    assert len({file.name for file in files}) == len(files)


def test_every_address_and_checksum_is_of_its_form():
    lengths = {"md5": 32, "sha256": 64}
    for each in DATA_SETS.values():
        assert not Path(each.folder).is_absolute() and (each.build is None) == (not each.members)
        for file in each.files:
            assert file.urls and all(map(is_web_address, file.urls)) and "/" not in file.name
        for checksum in [*(file.checksum for file in each.files), *each.members.values()]:
            if checksum:
                kind, _, digits = checksum.partition(":")
                assert re.fullmatch(rf"[0-9a-f]{{{lengths[kind]}}}", digits)


def test_published_checksums():
    """SQuAD's and the vocabulary's, as NVIDIA's scripts have them."""
    md5 = {file.name: file.checksum for name in GROUPS["squad"] for file in DATA_SETS[name].files}
    assert md5 == {
        "train-v1.1.json": "md5:981b29407e0affa3b1b156f72073b945",
        "dev-v1.1.json": "md5:3e85deb501d4e538b6bc56f786231552",
        "evaluate-v1.1.py": "md5:afb04912d18ff20696f7f88eed49bea9",
        "train-v2.0.json": "md5:62108c273c268d70893182d5cf8df740",
        "dev-v2.0.json": "md5:246adae8b7002f8679c027697b0b7cf8",
        "evaluate-v2.0.py": "md5:ff23213bed5516ea4a6d9edb6cd7d627",
    }
    vocab = DATA_SETS["vocab"].files[0].checksum
    assert vocab == DATA_SETS["uncased_L-24_H-1024_A-16"].members["vocab.txt"]


GOOD = """
[x]
folder = "download/x"
members = ["a.tsv"]
[x.files."x.zip"]
urls = ["https://example.org/x.zip"]
checksum = "md5:0123456789abcdef0123456789abcdef"
size = 5
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("folder =", "folders =", "folders = 'download/x': unknown key or wrong type"),
        ('folder = "download/x"', "", "'folder' is missing"),
        ("urls =", "addresses =", "addresses = ['https://example.org/x.zip']: unknown key"),
        ('urls = ["https://example.org/x.zip"]', "", "'urls' is missing"),
        ("size = 5", 'size = "5"', "size = '5': unknown key or wrong type"),
        ("https:", "ftp:", "ftp://example.org/x.zip: expected an address that begins with http"),
        ("md5:", "md4:", "md4:0123456789abcdef0123456789abcdef: expected md5:, sha1: or sha256:"),
        ("md5:01", "md5:", "md5:23456789abcdef0123456789abcdef: expected md5:, sha1: or sha256:"),
        ('members = ["a.tsv"]', 'members = {"a.tsv" = "sha256:0"}', "sha256:0: expected md5:"),
        ('"download/x"', '"../x"', "../x: expected a path below --output"),
        ('"a.tsv"', '"/etc/a.tsv"', "/etc/a.tsv: expected a path below --output"),
        ('members = ["a.tsv"]', 'members = ["a.tsv"]\nbuild = "unzip"', "'unzip' is missing or unknown"),
        ('members = ["a.tsv"]', 'build = "unpack"', "build = 'unpack': expected members too"),
    ],
)
def test_errors_in_a_catalog_are_named(tmp_path, old, new, message):
    path = tmp_path / "catalog.toml"
    path.write_text(GOOD)
    (x,) = load_catalog(path).values()
    assert (x.folder, x.files[0].name, x.files[0].size, dict(x.members)) == ("download/x", "x.zip", 5, {"a.tsv": None})
    assert old in GOOD
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(ValueError, match=re.escape(f"{path}: [x]: {message}")):
        load_catalog(path)


def test_wheels_contain_the_catalog():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    assert CATALOG in [ROOT / "bert" / "download" / name for name in declared["bert.download"]]


def test_folders_are_those_that_the_scripts_expect():
    script = (ROOT / "scripts" / "run_pretraining.sh").read_text()
    assert f"{DATA_SETS['vocab'].folder}/vocab.txt" in script
    assert DATA_SETS["squad-1.1"].folder == "download/squad/v1.1"
    folders = {Path(DATA_SETS[name].folder).name for name in GROUPS["glue"]}
    assert folders == {"CoLA", "SST-2", "MRPC", "STS-B", "QQP", "MNLI", "QNLI", "RTE", "WNLI", "AX"}
    assert all(Path(DATA_SETS[name].folder).name == name for name in GROUPS["weights"])


def test_names_and_groups():
    assert choose(["mrpc", "squad", "SQUAD-1.1", "wikipedia"]) == ["mrpc", "squad-1.1", "squad-2.0", "wikipedia"]
    assert len(choose(["glue"])) == 10 and len(choose(["weights"])) == 9
    assert choose([WWM.upper()]) == [WWM]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--dataset", "squat"], "--dataset squat: unknown, expected one of ax, cased_l-12"),
        (["--dataset", "mrpc", "--mirror", "/srv/mirror"], "--mirror /srv/mirror: expected an address"),
        (["--dataset", "wikipedia", "--wikipedia_language", "../x"], "--wikipedia_language ../x: expected the code"),
        (["--dataset", "mrpc", "--output", "/dev/null/x"], "--output /dev/null/x: "),
        (["--dataset", "mrpc", "--retries", "-1"], "--retries"),
        ([], "--dataset"),
    ],
)
def test_bad_flags_end_with_code_2(capsys, argv, message):
    with pytest.raises(SystemExit) as end:
        run_command(download, DownloadConfig, argv)
    assert end.value.code == 2 and message in capsys.readouterr().err


def test_the_output_is_the_working_folder_of_the_scripts():
    command = "from bert.download.datasets import DownloadConfig as D; print(D(['mrpc']).output)"
    for value, expected in (("/somewhere", "/somewhere"), (None, "data")):
        given = {k: v for k, v in os.environ.items() if k != "BERT_PREP_WORKING_DIR"}
        given |= {"BERT_PREP_WORKING_DIR": value} if value else {}
        done = subprocess.run([sys.executable, "-c", command], cwd=ROOT, env=given, capture_output=True, text=True)
        assert done.stdout.strip() == expected


# ---- what is fetched and where it goes


def test_an_archive_becomes_a_folder(site, tmp_path, capsys, no_checksums):
    site.files["/CoLA.zip"] = cola()
    assert run(site, tmp_path, "cola") == 0
    folder = tmp_path / "download" / "glue" / "CoLA"
    assert (folder / "train.tsv").read_bytes() == b"train\n" and (folder / "original" / "x").exists()
    assert states(capsys.readouterr().out) == {"cola": "fetched"}
    assert sorted(p.name for p in folder.parent.iterdir()) == ["CoLA", "CoLA.zip", "CoLA.zip.sha256"]
    checked = subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=folder, capture_output=True, text=True)
    assert (checked.returncode, checked.stdout) == (0, "")


def test_a_folder_appears_whole(site, tmp_path, no_checksums, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    site.files["/CoLA.zip"] = cola()
    monkeypatch.setattr("bert.download.datasets.write_sums", stop)
    assert run(site, tmp_path, "cola") == 130
    assert sorted(p.name for p in (tmp_path / "download/glue").iterdir()) == ["CoLA.zip", "CoLA.zip.sha256"]


def test_a_second_run_asks_for_nothing(site, tmp_path, capsys, no_checksums):
    site.files |= {"/CoLA.zip": cola(), "/AX.tsv": b"ax"}
    run(site, tmp_path, "cola", "ax")
    capsys.readouterr()
    site.requests.clear()
    assert run(site, tmp_path, "cola", "ax") == 0
    assert states(capsys.readouterr().out) == {"cola": "already there", "ax": "already there"}
    assert site.requests == []


def test_mrpc_comes_in_pieces(site, tmp_path, capsys, no_checksums):
    header = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
    site.files |= {
        "/msr_paraphrase_train.txt": f"{header}1\t1\t2\ta\tb\n0\t3\t4\tc\td\n".encode(),
        "/msr_paraphrase_test.txt": f"{header}1\t5\t6\te\tf\n".encode(),
        "/mrpc_dev_ids.tsv": b"3\t4\n",
    }
    assert run(site, tmp_path, "mrpc") == 0
    folder = tmp_path / "download" / "glue" / "MRPC"
    assert (folder / "train.tsv").read_text() == f"{header}1\t1\t2\ta\tb\n"
    assert (folder / "dev.tsv").read_text() == f"{header}0\t3\t4\tc\td\n"
    assert (folder / "test.tsv").read_text() == "index\t#1 ID\t#2 ID\t#1 String\t#2 String\n0\t5\t6\te\tf\n"


def test_published_checksums_hold_for_mirrors_too(site, tmp_path, capsys):
    site.files["/train-v1.1.json"] = b"x" * 30288272  # the right length
    site.files["/CoLA.zip"] = cola()
    site.files["/uncased_L-12_H-768_A-12.zip"] = weights("uncased_L-12_H-768_A-12")
    assert run(site, tmp_path, "squad-1.1", "cola", "uncased_L-12_H-768_A-12") == 1
    err = capsys.readouterr().err
    assert "expected 981b29407e0affa3b1b156f72073b945" in err
    assert "expected 376,971" in err
    assert re.search(r"its bert_config.json is damaged \(sha256 \w{64}, expected 7b4e5f53efbd", err)
    left = {p.name for p in tmp_path.rglob("*") if p.is_file()}
    assert left == {"uncased_L-12_H-768_A-12.zip", "uncased_L-12_H-768_A-12.zip.sha256"}


def test_one_missing_data_set_does_not_stop_the_others(site, tmp_path, capsys, no_checksums):
    site.files |= {"/CoLA.zip": cola(), "/AX.tsv": b"ax", f"/{WWM}.zip": weights()}
    assert run(site, tmp_path, "cola", "rte", "ax", WWM) == 1
    out, err = capsys.readouterr()
    assert states(out) == {"cola": "fetched", "rte": "FAILED", "ax": "fetched", WWM: "fetched"}
    assert f"  {site.url}/RTE.zip: HTTP 404 Not Found\n" in err
    assert "  https://dl.fbaipublicfiles.com/glue/data/RTE.zip: the proxy does not answer" in err
    assert f"by hand: save it as {tmp_path}/download/glue/RTE.zip and run this again (no checksum is published)" in err
    assert (tmp_path / "download/glue/AX/AX.tsv").exists()
    assert (tmp_path / "download/google_pretrained_weights" / WWM / "vocab.txt").exists()
    assert not (tmp_path / "download/glue/RTE").exists()


def test_a_missing_script_does_not_cost_the_data(site, tmp_path, capsys, no_checksums):
    site.files |= {"/train-v2.0.json": b"{}", "/dev-v2.0.json": b"{}"}
    assert run(site, tmp_path, "squad-2.0") == 1
    assert {p.name for p in (tmp_path / "download/squad/v2.0").glob("*.json")} == {"train-v2.0.json", "dev-v2.0.json"}
    site.files["/evaluate-v2.0.py"] = b""
    assert run(site, tmp_path, "squad-2.0") == 0
    assert site.paths().count("/train-v2.0.json") == 1


def test_the_advice_of_the_error_works(site, tmp_path, capsys, no_checksums):
    assert run(site, tmp_path, "cola") == 1
    (place,) = re.findall(r"by hand: save it as (\S+)", capsys.readouterr().err)
    Path(place).write_bytes(cola())
    assert run(site, tmp_path, "cola") == 0
    assert (tmp_path / "download/glue/CoLA/train.tsv").exists()


@pytest.mark.parametrize("entry", ["../evil.tsv", "/tmp/evil.tsv"])
def test_an_evil_archive(site, tmp_path, capsys, no_checksums, entry):
    site.files["/CoLA.zip"] = zipped({"CoLA/train.tsv": b"", entry: b"evil"})
    assert run(site, tmp_path / "data", "cola") == 1
    assert "would lie outside the folder" in capsys.readouterr().err
    assert site.paths() == ["/CoLA.zip"]  # it would be no better the second time
    assert {p.name for p in tmp_path.rglob("*") if p.is_file()} == {"CoLA.zip", "CoLA.zip.sha256"}


def test_an_archive_that_lacks_a_file(site, tmp_path, capsys, no_checksums):
    site.files["/CoLA.zip"] = zipped({"CoLA/train.tsv": b""})
    assert run(site, tmp_path, "cola") == 1
    assert "CoLA.zip: its dev.tsv is missing" in capsys.readouterr().err
    assert not (tmp_path / "download/glue/CoLA").exists()


def test_a_page_instead_of_an_archive_is_left_for_the_next_address(site, tmp_path, capsys, no_checksums):
    site.files |= {"/login/CoLA.zip": b"<html>log in</html>", "/CoLA.zip": cola()}
    argv = ["--dataset", "cola", "--output", str(tmp_path), "--mirror", f"{site.url}/login", site.url]
    download(parse_args(DownloadConfig, argv))
    assert (tmp_path / "download/glue/CoLA/train.tsv").exists()
    site.files["/CoLA.zip"] = cola()[:-10]
    assert run(site, tmp_path / "other", "cola") == 1
    assert f"  {site.url}/CoLA.zip: neither a zip nor a tar file" in capsys.readouterr().err
    assert [path for path in (tmp_path / "other").rglob("*") if path.is_file()] == []


def test_a_broken_archive_from_before_is_fetched_again(site, tmp_path, capsys, no_checksums):
    site.files["/CoLA.zip"] = cola()
    archive = tmp_path / "download/glue/CoLA.zip"
    archive.parent.mkdir(parents=True)
    archive.write_bytes(cola()[:50])
    assert run(site, tmp_path, "cola") == 0
    assert f"{archive}: damaged" in capsys.readouterr().err
    assert archive.read_bytes() == cola()


# ---- a second run


@pytest.fixture
def there(site, tmp_path, no_checksums, capsys):
    site.files["/CoLA.zip"] = cola()
    run(site, tmp_path, "cola")
    capsys.readouterr()
    return tmp_path / "download" / "glue" / "CoLA"


def test_a_damaged_file_is_named_and_fetched_again(site, tmp_path, capsys, there):
    (there / "dev.tsv").write_bytes(b"dev?\n")
    (there / "original" / "x").unlink()
    (there / "cached_features").write_bytes(b"the user's")
    assert run(site, tmp_path, "cola") == 0
    out, err = capsys.readouterr()
    assert f"{there}/dev.tsv: damaged (sha256 " in err and f"{there}/original/x: missing" in err
    assert states(out) == {"cola": "fetched"}
    assert (there / "dev.tsv").read_bytes() == b"dev\n" and (there / "original" / "x").exists()
    assert (there / "cached_features").read_bytes() == b"the user's"
    run(site, tmp_path, "cola")
    assert states(capsys.readouterr().out) == {"cola": "already there"}


def test_a_deleted_archive_is_not_needed(site, tmp_path, capsys, there):
    (there.parent / "CoLA.zip").unlink()
    site.requests.clear()
    assert run(site, tmp_path, "cola") == 0
    assert site.requests == []


def test_a_folder_made_by_hand_is_enough(site, tmp_path, capsys, no_checksums):
    folder = tmp_path / "download" / "glue" / "CoLA"
    folder.mkdir(parents=True)
    for name in ("train.tsv", "dev.tsv", "test.tsv"):
        (folder / name).write_bytes(b"mine")
    assert run(site, tmp_path, "cola") == 0
    assert states(capsys.readouterr().out) == {"cola": "already there"} and site.requests == []


def test_own_files_are_kept(site, tmp_path, capsys, no_checksums):
    site.files["/CoLA.zip"] = cola()
    folder = tmp_path / "download" / "glue" / "CoLA"
    folder.mkdir(parents=True)
    (folder / "train.tsv").write_bytes(b"mine")
    assert run(site, tmp_path, "cola") == 0
    assert "CoLA: kept your own train.tsv" in capsys.readouterr().out
    assert (folder / "train.tsv").read_bytes() == b"mine" and (folder / "dev.tsv").read_bytes() == b"dev\n"
    run(site, tmp_path, "cola")
    assert states(capsys.readouterr().out) == {"cola": "already there"}


def test_weights_beside_a_vocabulary_fetched_before(site, tmp_path, capsys, no_checksums, monkeypatch):
    name = "uncased_L-24_H-1024_A-16"
    content = weights(name)
    site.files |= {"/vocab.txt": b"vocab.txt", f"/{name}.zip": content}
    known = dict.fromkeys(DATA_SETS[name].members) | {"vocab.txt": f"sha256:{hashlib.sha256(b'vocab.txt').hexdigest()}"}
    monkeypatch.setitem(DATA_SETS, name, replace(DATA_SETS[name], members=known))
    assert run(site, tmp_path, "vocab", name) == 0
    folder = tmp_path / DATA_SETS[name].folder
    assert (folder / "vocab.txt").read_bytes() == b"vocab.txt" and (folder / "bert_config.json").exists()
    capsys.readouterr()
    run(site, tmp_path, "vocab", name)
    assert states(capsys.readouterr().out) == {"vocab": "already there", name: "already there"}


def test_files_of_a_new_folder_are_not_reported_missing(site, tmp_path, capsys, no_checksums):
    site.files["/CoLA.zip"] = cola()
    (tmp_path / "download" / "glue" / "CoLA").mkdir(parents=True)
    assert run(site, tmp_path, "cola") == 0
    assert capsys.readouterr().err == ""


def test_leftovers_of_killed_runs_are_removed(site, tmp_path, capsys, no_checksums):
    site.files["/CoLA.zip"] = cola()
    left = tmp_path / "download" / "glue" / ".4711.CoLA.unpacking"
    left.mkdir(parents=True)
    (left / "train.tsv").write_bytes(b"half")
    run(site, tmp_path, "cola")
    assert sorted(p.name for p in left.parent.iterdir()) == ["CoLA", "CoLA.zip", "CoLA.zip.sha256"]


# ---- the command as a process


def command(site: Site, output: Path, *names: str) -> list[str]:
    flags = ["--mirror", site.url, "--retries", "0", "--timeout", "20", "--disable_progress_bar"]
    return [sys.executable, str(ROOT / "data" / "download.py"), "--dataset", *names, "--output", str(output), *flags]


def test_a_killed_run_is_resumed_by_the_next(site, tmp_path):
    content = weights(config=os.urandom(200_000))
    site.files[f"/{WWM}.zip"] = content
    site.plan[f"/{WWM}.zip"].append(stall(100_000))
    part = tmp_path / "download" / "google_pretrained_weights" / f"{WWM}.zip.part"
    process = subprocess.Popen(command(site, tmp_path, WWM), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while not (part.exists() and part.stat().st_size >= 65536):  # what lies in the process's own buffer is lost
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    size = part.stat().st_size
    done = subprocess.run(command(site, tmp_path, WWM), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert site.ranges(f"/{WWM}.zip") == [None, f"bytes={size}-"]
    folder = part.parent / WWM
    assert part.with_name(f"{WWM}.zip").read_bytes() == content
    assert len((folder / "bert_config.json").read_bytes()) == 200_000
    assert states(done.stdout) == {WWM: "fetched"}


def test_exit_codes_of_the_process(site, tmp_path):
    failed = subprocess.run(command(site, tmp_path, WWM), capture_output=True, text=True)
    assert failed.returncode == 1 and states(failed.stdout) == {WWM: "FAILED"}
    assert "Traceback" not in failed.stderr and "HTTP 404" in failed.stderr
    bad = subprocess.run(command(site, tmp_path, "nothing"), capture_output=True, text=True)
    assert bad.returncode == 2 and bad.stderr.startswith("error: --dataset nothing: unknown")


def test_progress_shows_bytes(site, tmp_path):
    site.files[f"/{WWM}.zip"] = weights(config=os.urandom(200_000))
    argv = [word for word in command(site, tmp_path, WWM) if word != "--disable_progress_bar"]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert re.search(rf"{WWM}.zip: +100%.* 201k/201k .*B/s", done.stderr), done.stderr


# ---- the dump of a Wikipedia

DUMP = "simplewiki-latest-pages-articles-multistream.xml.bz2"
SUMS = "simplewiki-latest-sha1sums.txt"


def sums(content: bytes, date: str = "20260901") -> bytes:
    digest = hashlib.sha1(content).hexdigest()
    names = [f"simplewiki-{date}-pages-articles.xml.bz2", f"simplewiki-{date}-pages-articles-multistream.xml.bz2"]
    return f"{'0' * 40}  {names[0]}\n{digest}  {names[1]}\n{'0' * 40}  {names[1]}-index.txt.bz2\n".encode()


def wikipedia(site: Site, output: Path) -> int:
    return run(site, output, "wikipedia", wikipedia_language="simple")


def test_a_dump_is_checked_by_the_sums_beside_it(site, tmp_path, capsys):
    site.files |= {f"/{DUMP}": b"BZh dump", f"/{SUMS}": sums(b"BZh dump")}
    assert wikipedia(site, tmp_path) == 0
    assert (tmp_path / "wikipedia" / DUMP).read_bytes() == b"BZh dump"
    site.requests.clear()
    site.files |= {f"/{DUMP}": b"BZh newer", f"/{SUMS}": sums(b"BZh newer")}
    assert wikipedia(site, tmp_path) == 0  # an older dump is kept
    assert site.requests == [] and states(capsys.readouterr().out.splitlines()[-1]) == {"wikipedia": "already there"}


def test_a_dump_that_was_damaged_since(site, tmp_path, capsys):
    site.files |= {f"/{DUMP}": b"BZh dump", f"/{SUMS}": sums(b"BZh dump")}
    wikipedia(site, tmp_path)
    (tmp_path / "wikipedia" / DUMP).write_bytes(b"BZh damp")
    assert wikipedia(site, tmp_path) == 0
    assert (tmp_path / "wikipedia" / DUMP).read_bytes() == b"BZh dump"
    assert "damaged or another version" in capsys.readouterr().err


def test_a_dump_with_another_sum_is_refused(site, tmp_path, capsys):
    site.files |= {f"/{DUMP}": b"BZh dump", f"/{SUMS}": sums(b"BZh another")}
    assert wikipedia(site, tmp_path) == 1
    err = capsys.readouterr().err
    assert f"expected {hashlib.sha1(b'BZh another').hexdigest()}" in err
    assert "https://dumps.wikimedia.org/simplewiki/latest/simplewiki-latest-pages-articles-multistream.xml.bz2" in err
    assert not (tmp_path / "wikipedia" / DUMP).exists()


def test_a_dump_without_sums(site, tmp_path, capsys):
    site.files[f"/{DUMP}"] = b"BZh dump"
    assert wikipedia(site, tmp_path) == 0
    assert "no checksums" in capsys.readouterr().err


def test_a_page_instead_of_a_dump(site, tmp_path, capsys):
    site.files[f"/{DUMP}"] = b"<html>log in</html>"
    assert wikipedia(site, tmp_path) == 1
    assert f"  {site.url}/{DUMP}: not a bz2 file" in capsys.readouterr().err


def test_the_published_sums_lead_to_the_dated_dump(tmp_path, site, monkeypatch, capsys):
    monkeypatch.setattr("bert.download.dumps.ROOTS", (f"{site.url}/first", f"{site.url}/second"))
    dated = "simplewiki/20260901/simplewiki-20260901-pages-articles-multistream.xml.bz2"
    site.files |= {f"/first/simplewiki/latest/{SUMS}": sums(b"BZh dump"), f"/second/{dated}": b"BZh dump"}
    argv = ["--dataset", "wikipedia", "--wikipedia_language=simple", f"--output={tmp_path}", "--disable_progress_bar"]
    download(parse_args(DownloadConfig, [*argv, "--retries=0"]))
    assert (tmp_path / "wikipedia" / DUMP).read_bytes() == b"BZh dump"
    assert site.paths() == [f"/first/simplewiki/latest/{SUMS}", f"/first/{dated}", f"/second/{dated}"]
