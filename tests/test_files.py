"""A file is replaced whole or left alone; files below a folder are found through links, each once."""

import os

import pytest

from bert.files import decode, files_below, new_folder, replacing


def test_the_new_content_takes_the_name(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with replacing(path) as temporary:
        assert temporary.suffix == ".txt" and temporary.parent == tmp_path
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_an_error_leaves_the_old_content_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_appears_when_it_is_whole(tmp_path):
    with new_folder(tmp_path / "deep" / "made") as folder:
        (folder / "file").write_text("new")
        assert not (tmp_path / "deep" / "made").exists()
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["made"]
    assert (tmp_path / "deep" / "made" / "file").read_text() == "new"


def test_an_empty_folder_is_filled_and_another_is_left_alone(tmp_path):
    for name in ("empty", "full"):
        (tmp_path / name).mkdir()
    (tmp_path / "full" / "mine").write_text("old")
    with new_folder(tmp_path / "empty") as folder:
        (folder / "file").write_text("new")
    assert (tmp_path / "empty" / "file").exists()
    with pytest.raises(OSError), new_folder(tmp_path / "full") as folder:
        (folder / "file").write_text("new")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["empty", "file", "full", "mine"]


def test_a_folder_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "made") as folder:
        (folder / "file").write_text("half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def tree(folder, *names):
    """Make files, and links from names such as "a -> b"."""
    for name in names:
        link, arrow, target = name.partition(" -> ")
        (folder / link).parent.mkdir(parents=True, exist_ok=True)
        if arrow:
            (folder / link).symlink_to(target)
        else:
            (folder / link).touch()


def below(folder, said):
    found = files_below(folder, lambda name: name.endswith(".txt"), said.append)
    return [path.relative_to(folder).as_posix() for path in found]


def test_linked_folders_are_read_once_and_a_folder_is_listed_without_a_link_if_it_can_be(tmp_path):
    tree(tmp_path, "real/b.txt", "real/deep/c.txt", "real/.hidden/x.txt", "texts/a.txt", "texts/sub/d.txt", "one.txt")
    tree(tmp_path, "texts/books -> ../real", "texts/also -> ../real", "texts/Again -> sub", "texts/z.txt -> ../one.txt")
    tree(tmp_path, "texts/.no -> ../real", "texts/note.md", "texts/folder.txt/e.txt")
    os.mkfifo(tmp_path / "texts" / "pipe.txt")
    said: list[str] = []
    expected = ["a.txt", "also/b.txt", "also/deep/c.txt", "folder.txt/e.txt", "sub/d.txt", "z.txt"]
    assert below(tmp_path / "texts", said) == expected
    (tmp_path / "link").symlink_to("texts")
    assert below(tmp_path / "link", said) == expected
    assert said == []


def test_links_that_lead_nowhere_or_in_a_circle_end_and_are_counted(tmp_path):
    tree(tmp_path, "top/texts/a.txt", "top/texts/sub/b.txt", "other/c.txt", "top/not_asked.txt")
    tree(tmp_path, "top/texts/sub/loop -> ..", "top/texts/up -> ../..", "top/texts/me -> me", "top/texts/gone.txt -> x")
    tree(tmp_path, "top/texts/other -> ../../other", "other/back -> ../top/texts", "other/self -> .")
    said: list[str] = []
    texts = tmp_path / "top" / "texts"
    assert below(texts, said) == ["a.txt", "other/c.txt", "sub/b.txt"]
    (line,) = said
    assert line.startswith(f"{texts}: 5 links or folders passed over: {texts}/gone.txt (a link that leads nowhere), ")
    assert line.endswith(f"{texts}/other/self (leads back to a folder above it), ...")


@pytest.mark.parametrize("encoding", ["utf8", "utf-8-sig", "utf-16"])
def test_a_byte_order_mark_says_how_text_is_written_and_is_no_part_of_it(encoding):
    assert decode("Öl\ufeff\n".encode(encoding)) == "Öl\ufeff\n"
    with pytest.raises(UnicodeDecodeError):
        decode("Öl".encode(encoding) + b"\xff")
