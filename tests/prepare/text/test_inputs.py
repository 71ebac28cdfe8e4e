"""Files that the user names, and compressed files, which are unpacked."""

import bz2
import gzip
import lzma
import os

import pytest

from bert.errors import UsageError
from bert.prepare.text.inputs import compressed, find_files, unpack


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_files_patterns_directories_and_comma_lists(tmp_path):
    touch(tmp_path, "b.txt", "a.txt", "sub/c.txt", "notes.md", "x,y.txt")

    def found(*inputs):
        paths = find_files([f"{tmp_path}/{i}" for i in inputs], "--text")
        return [str(path.relative_to(tmp_path)) for path in paths]

    assert found(".") == ["a.txt", "b.txt", "sub/c.txt", "x,y.txt"]
    assert found("b.txt", "a.txt") == found(f"b.txt,{tmp_path}/a.txt") == ["b.txt", "a.txt"]
    assert found("?.txt", "notes.md") == ["a.txt", "b.txt", "notes.md"]
    assert found("x,y.txt") == ["x,y.txt"]


def test_hidden_files_and_folders_are_left_out_below_a_folder(tmp_path):
    root = tmp_path / ".cache"
    touch(root, "a.txt", ".b.txt", ".sub/c.txt", "d.TXT", "e.txt.gz", "f.txt.zip")
    os.mkdir(root / "folder.txt")
    assert [p.name for p in find_files([str(root)], "--text", compressed(".txt"))] == ["a.txt", "d.TXT", "e.txt.gz"]
    assert find_files([f"{root}/.b.txt"], "--text") == [root / ".b.txt"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing", "--text {}: no such file or directory"),
        ("empty", "--text {}: no .txt file in this directory"),
    ],
)
def test_what_names_nothing_is_an_error(tmp_path, name, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.md").touch()
    with pytest.raises(UsageError) as error:
        find_files([str(tmp_path / name)], "--text")
    assert str(error.value) == message.format(tmp_path / name)


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)])
def test_a_compressed_file_is_unpacked_once(tmp_path, suffix, pack):
    source = tmp_path / f"a.txt{suffix}"
    source.write_bytes(pack(b"One.\n") + pack(b"Two.\n"))  # as two compressed files laid end to end
    copy = unpack(source, tmp_path / "work", "--text", show_progress=False)
    assert (copy.name, copy.read_bytes()) == ("a.txt", b"One.\nTwo.\n")
    before = copy.stat()
    assert unpack(source, tmp_path / "work", "--text", show_progress=False) == copy
    assert copy.stat() == before
    source.write_bytes(pack(b"Something else.\n"))
    assert unpack(source, tmp_path / "work", "--text", show_progress=False).read_bytes() == b"Something else.\n"


def test_files_of_one_name_are_kept_apart_and_plain_files_stay(tmp_path):
    sources = [tmp_path / folder / "a.txt.gz" for folder in "xy"]
    for source in sources:
        source.parent.mkdir()
        source.write_bytes(gzip.compress(source.parent.name.encode()))
    copies = [unpack(source, tmp_path / "work", "--text", show_progress=False) for source in sources]
    assert [copy.read_text() for copy in copies] == ["x", "y"]
    assert unpack(tmp_path / "plain.txt", tmp_path / "work", "--text", show_progress=False) == tmp_path / "plain.txt"


@pytest.mark.parametrize("content", [gzip.compress(os.urandom(5000))[:-100], b"no gzip at all"])
def test_a_damaged_file_is_an_error_and_leaves_nothing_half_unpacked(tmp_path, content):
    (tmp_path / "a.txt.gz").write_bytes(content)
    with pytest.raises(UsageError, match=f"^--text {tmp_path}/a.txt.gz: cannot unpack to "):
        unpack(tmp_path / "a.txt.gz", tmp_path / "work", "--text", show_progress=False)
    assert not [path for path in (tmp_path / "work").rglob("*") if path.is_file()]


def test_what_a_killed_run_left_is_cleared_away(tmp_path):
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"text"))
    copy = unpack(tmp_path / "a.txt.gz", tmp_path / "work", "--text", show_progress=False)
    copy.rename(copy.with_name(".4711.a.txt"))
    assert unpack(tmp_path / "a.txt.gz", tmp_path / "work", "--text", show_progress=False) == copy
    assert [path.name for path in copy.parent.iterdir()] == ["a.txt"]
