from pathlib import Path

import pytest

from bert.errors import UsageError
from bert.glue.tables import TableRow, read_table


def read(path: Path, data: str | bytes, *columns: str, **options) -> list[TableRow]:
    path.write_bytes(data if isinstance(data, bytes) else data.encode("utf8"))
    return list(read_table(path, columns, **options))


def test_tab_separated_values_have_no_quoting(tmp_path):
    rows = read(tmp_path / "a.tsv", 'x\ty\n"one\t2\n"" three "\t4"\n', "y", "x")
    assert rows == [(2, ("2", '"one')), (3, ('4"', '"" three "'))]


def test_lines_end_at_newlines_only(tmp_path):
    rows = read(tmp_path / "a.tsv", "x\ty\r\na\u2028b\x85c\td\re\r\n\tf\r\n\r\n", "x", "y")
    assert rows == [(2, ("a\u2028b\x85c", "d\re")), (3, ("", "f"))]


def test_a_byte_order_mark_is_not_part_of_the_header(tmp_path):
    assert read(tmp_path / "a.csv", "x,y\n中,1\n".encode("utf-16"), "x") == [(2, ("中",))]
    assert read(tmp_path / "a.tsv", b"\xef\xbb\xbfx\ty\n\xe4\xb8\xad\t1\n", "x") == [(2, ("中",))]


def test_a_file_without_header(tmp_path):
    assert read(tmp_path / "a.tsv", "a\tb\nc\td\n", "y", names=("x", "y")) == [(1, ("b",)), (2, ("d",))]


def test_csv_fields_may_be_quoted_and_span_lines(tmp_path):
    text = 'text,label\r\n"a, ""b""\nc",1\r\n\r\nd,2\r\n'
    assert read(tmp_path / "a.csv", text, "text", "label") == [(2, ('a, "b"\nc', "1")), (5, ("d", "2"))]


def test_json_lines(tmp_path):
    text = '{"t": "a\\tb", "l": 1}\n\n{"l": true, "t": "\\ud83d\\ude00", "more": [1]}\n{"t": "", "l": 2.5}'
    expected = [(1, ("a\tb", "1")), (3, ("\U0001f600", "true")), (4, ("", "2.5"))]
    assert read(tmp_path / "a.jsonl", text, "t", "l") == expected


def test_broken_rows_are_skipped_on_request(tmp_path):
    broken: list[int] = []
    rows = read(tmp_path / "a.tsv", "x\ty\na\tb\nc\nd\te\tf\ng\th\n", "x", broken=broken)
    assert (rows, broken) == ([(2, ("a",)), (5, ("g",))], [3, 4])


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.tsv", "x\ty\na\tb\nc\n", "a.tsv: line 3: 1 columns, expected 2: x, y"),
        ("a.tsv", "x\ty\na\tb\tc\n", "a.tsv: line 2: 3 columns, expected 2: x, y"),
        ("a.tsv", "y\tz\na\tb\n", "a.tsv: line 1: column 'x' is missing, the columns are y, z"),
        ("a.tsv", "x\tx\na\tb\n", "a.tsv: line 1: column 'x' is repeated, the columns are x, x"),
        ("a.tsv", "", "a.tsv: the file is empty, expected one example per line"),
        ("a.csv", "\r\n \n", "a.csv: the file is empty, expected one example per line"),
        ("a.tsv", b"x\ny\nz\xe9\n", "a.tsv: line 3: byte 0xe9, expected UTF-8 text"),
        ("a.tsv", b"\xef\xbb\xbf\n\xff\n", "a.tsv: line 2: byte 0xff, expected UTF-8 text"),
        ("a.csv", 'x\n1\n"2\n3\n', "a.csv: line 3: unexpected end of data, expected comma-separated values"),
        ("a.csv", "x,y\n1,2\n3\n", "a.csv: line 3: 1 columns, expected 2: x, y"),
        ("a.jsonl", '{"x": 1}\n{"y": 1, "z": 2}\n', "a.jsonl: line 2: key 'x' is missing, the keys are y, z"),
        ("a.jsonl", "[1]\n", "a.jsonl: line 1: a JSON list, expected an object"),
        ("a.jsonl", '{"x": null}\n', "a.jsonl: line 1: 'x' is null, expected a string or a number"),
        ("a.jsonl", '{"x": ["b"]}\n', "a.jsonl: line 1: 'x' is [\"b\"], expected a string or a number"),
        ("a.jsonl", '{"x": "\\ud83d"}\n', "a.jsonl: line 1: 'x' has a lone surrogate, expected Unicode text"),
        ("a.txt", "x\n1\n", "a.txt: expected a file ending in .tsv, .csv, .jsonl"),
    ],
)
def test_errors_name_the_line(tmp_path, name, data, message):
    with pytest.raises(UsageError) as error:
        read(tmp_path / name, data, "x")
    assert str(error.value) == f"{tmp_path}/{message}"


@pytest.mark.parametrize("line", ["{x: 1}", "[" * 100_000])
def test_a_line_that_is_not_json(tmp_path, line):
    with pytest.raises(UsageError, match=r"a.jsonl: line 2: not JSON \(.*\), expected one object per line"):
        read(tmp_path / "a.jsonl", f'{{"x": 1}}\n{line}\n', "x")


def test_a_missing_file(tmp_path):
    with pytest.raises(UsageError, match=r"/none.tsv: No such file or directory"):
        list(read_table(tmp_path / "none.tsv", ["x"]))
