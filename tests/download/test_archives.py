"""Archives that try to leave their folder, to fill the disk, or that are damaged; and the pieces of MRPC."""

import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from bert.download import archives
from bert.download.archives import ArchiveError, unpack
from bert.download.mrpc import build_mrpc


def make_zip(path: Path, entries: dict[str, bytes], kinds: dict[str, int] | None = None) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = ((kinds or {}).get(name, stat.S_IFREG) | 0o644) << 16
            archive.writestr(info, content, zipfile.ZIP_DEFLATED)
    return path


def make_tar(path: Path, entries: dict[str, bytes], mode: str = "w:gz", **members: dict) -> Path:
    """``members`` are further entries by their attributes."""
    with tarfile.open(path, mode) as archive:
        for name, content in entries.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for attributes in members.values():
            info = tarfile.TarInfo()
            for key, value in attributes.items():
                setattr(info, key, value)
            archive.addfile(info)
    return path


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


TWO = {"train.tsv": b"1\t2\n", "original/raw.tsv": b"3"}


@pytest.mark.parametrize("make", [make_zip, make_tar])
@pytest.mark.parametrize("top", ["", "./", "CoLA/", "./CoLA/"])
def test_a_folder_around_everything_is_left_out(tmp_path, make, top):
    archive = make(tmp_path / "a", {top + name: content for name, content in TWO.items()})
    unpack(archive, tmp_path / "out")
    assert files(tmp_path / "out") == TWO


def test_what_macos_adds_is_left_out(tmp_path):
    clutter = {"__MACOSX/CoLA/._train.tsv": b"x", "CoLA/.DS_Store": b"x", "CoLA/._train.tsv": b"x"}
    unpack(make_zip(tmp_path / "a", {**{f"CoLA/{k}": v for k, v in TWO.items()}, **clutter}), tmp_path / "out")
    assert files(tmp_path / "out") == TWO


def test_two_archives_in_one_folder(tmp_path):
    for number in range(2):
        unpack(make_zip(tmp_path / f"{number}.zip", {f"top{number}/{number}.tsv": b""}), tmp_path / "out")
    assert files(tmp_path / "out") == {"0.tsv": b"", "1.tsv": b""}


@pytest.mark.parametrize("make", [make_zip, make_tar])
@pytest.mark.parametrize(
    "name", ["../evil", "a/../../evil", "/etc/evil", "a/..", "..", "C:/evil", "C:evil", "..\\evil", "//host/share/evil"]
)
def test_a_name_outside_is_refused_and_nothing_is_unpacked_outside(tmp_path, make, name):
    archive = make(tmp_path / "a", {name: b"evil"})
    with pytest.raises(ArchiveError, match="would lie outside"):
        unpack(archive, tmp_path / "deep" / "out")
    assert files(tmp_path).keys() == {"a"}


def test_a_zip_is_checked_before_its_first_file_is_written(tmp_path):
    with pytest.raises(ArchiveError):
        unpack(make_zip(tmp_path / "a", {"good": b"1", "../evil": b"2"}), tmp_path / "out")
    assert files(tmp_path / "out") == {}


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK])
def test_a_zip_with_more_than_files(tmp_path, kind):
    archive = make_zip(tmp_path / "a", {"link": b"/etc/passwd"}, {"link": kind})
    with pytest.raises(ArchiveError, match="link is neither a file nor a folder"):
        unpack(archive, tmp_path / "out")


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        (tarfile.SYMTYPE, "../../etc/passwd"),
        (tarfile.SYMTYPE, "/etc/passwd"),
        (tarfile.SYMTYPE, "train.tsv"),
        (tarfile.LNKTYPE, "../a"),
        (tarfile.CHRTYPE, ""),
        (tarfile.BLKTYPE, ""),
        (tarfile.FIFOTYPE, ""),
    ],
)
def test_a_tar_with_more_than_files(tmp_path, kind, target):
    archive = make_tar(tmp_path / "a", {}, link={"name": "link", "type": kind, "linkname": target})
    with pytest.raises(ArchiveError, match="link is neither a file nor a folder"):
        unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out" / ".a" / "link").is_symlink()


def test_a_file_through_a_link_to_outside(tmp_path):
    """The second entry would follow the first, were there one."""
    outside = tmp_path / "outside"
    outside.mkdir()
    with tarfile.open(tmp_path / "a", "w") as archive:
        link = tarfile.TarInfo("x")
        link.type, link.linkname = tarfile.SYMTYPE, str(outside)
        archive.addfile(link)
        archive.addfile(tarfile.TarInfo("x/evil"))
    with pytest.raises(ArchiveError):
        unpack(tmp_path / "a", tmp_path / "out")
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_a_bomb(tmp_path, make, monkeypatch):
    monkeypatch.setattr(archives, "ALWAYS_ALLOWED", 1000)
    unpack(make(tmp_path / "small", {"a": bytes(999)}), tmp_path / "fine")
    with pytest.raises(ArchiveError, match=r"a: unpacks to 1 files with 1,000,000 bytes, which is suspicious"):
        unpack(make(tmp_path / "a", {"zeros": bytes(1_000_000)}), tmp_path / "out")
    assert files(tmp_path / "out") == {}
    monkeypatch.setattr(archives, "MOST_ENTRIES", 2)
    with pytest.raises(ArchiveError, match="unpacks to 3 files"):
        unpack(make(tmp_path / "b", dict.fromkeys("abc", b"")), tmp_path / "many")


def test_a_zip_whose_entry_is_longer_than_it_says(tmp_path):
    """What was added up beforehand bounds what is written."""
    path = make_zip(tmp_path / "a", {"x": b"0" * 100_000})
    data = path.read_bytes()
    size = (100_000).to_bytes(4, "little")
    assert data.count(size) == 2  # in the entry and in the directory
    path.write_bytes(data.replace(size, (10).to_bytes(4, "little")))
    with pytest.raises(ArchiveError, match="damaged"):
        unpack(path, tmp_path / "out")
    assert all(len(content) <= 10 for content in files(tmp_path / "out").values())


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_damage(tmp_path, make):
    content = bytes(range(256)) * 50
    whole = make(tmp_path / "a", {"x": content}).read_bytes()
    middle = len(whole) // 2
    for number, data in enumerate((b"", b"<html>not found</html>", whole[:middle], whole[:-10])):
        (tmp_path / "a").write_bytes(data)
        with pytest.raises(ArchiveError, match=f"{tmp_path / 'a'}: damaged"):
            unpack(tmp_path / "a", tmp_path / f"out{number}")


def test_a_changed_byte(tmp_path):
    path = tmp_path / "a"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("x", b"the content")
    path.write_bytes(path.read_bytes().replace(b"the content", b"The content"))
    with pytest.raises(ArchiveError, match="CRC"):
        unpack(path, tmp_path / "out")


def test_a_zip_with_a_password(tmp_path):
    path = make_zip(tmp_path / "a", {"x": b"y"})
    data = bytearray(path.read_bytes())
    for signature in (b"PK\x03\x04", b"PK\x01\x02"):  # flag bit 0 of the entry and of the directory
        data[data.index(signature) + (6 if signature == b"PK\x03\x04" else 8)] |= 1
    path.write_bytes(bytes(data))
    with pytest.raises(ArchiveError, match="password"):
        unpack(path, tmp_path / "out")


# ---- MRPC

HEADER = "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String"
TRAINING = [HEADER, '1\t10\t20\tHe said "yes .\tHe agreed .', "0\t11\t21\tA\u2028b\tC", "1\t20\t10\tE\tF "]
TEST = [HEADER, "1\t30\t40\tG\tH", "0\t31\t41\tI\tJ"]


def pieces(folder: Path, training=TRAINING, test=TEST, dev_ids=("11\t21",), end="\n") -> list[Path]:
    made = []
    for name, lines in (("train.txt", training), ("test.txt", test), ("ids.tsv", dev_ids)):
        made.append(folder / name)
        made[-1].write_bytes("".join(line + end for line in lines).encode())
    return made


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_mrpc(tmp_path, end):
    """Pairs (11, 21) are the dev set; (20, 10) is not (10, 20); the test set loses its labels and gets an index."""
    out = tmp_path / "out"
    out.mkdir()
    build_mrpc(pieces(tmp_path, end=end), out)
    head = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
    assert {name: content.decode() for name, content in files(out).items()} == {
        "train.tsv": head + '1\t10\t20\tHe said "yes .\tHe agreed .\n1\t20\t10\tE\tF\n',
        "dev.tsv": head + "0\t11\t21\tA\u2028b\tC\n",
        "test.tsv": "index\t#1 ID\t#2 ID\t#1 String\t#2 String\n0\t30\t40\tG\tH\n1\t31\t41\tI\tJ\n",
    }


def test_mrpc_of_another_form(tmp_path):
    with pytest.raises(ArchiveError, match=r"test.txt: row 2 has 1 columns, expected 5"):
        build_mrpc(pieces(tmp_path, test=[HEADER, "<html>"]), tmp_path)
    with pytest.raises(ArchiveError, match=r"ids.tsv: row 1 has 3 columns, expected 2"):
        build_mrpc(pieces(tmp_path, dev_ids=["1\t2\t3"]), tmp_path)
