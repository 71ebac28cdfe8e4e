"""The check on a GPU: its table, what becomes of a part that fails or hangs, and that its commands exist."""

import json
import time
from pathlib import Path

import pytest

from benchmarks import fp8_shapes, gpu_check, lamb, pretrain, squad
from benchmarks.gpu_check import (
    PARTS,
    GpuCheckConfig,
    Outcome,
    Part,
    Row,
    main,
    peer,
    read_tests,
    run_part,
    table_row,
    words_of,
)
from bert.config import parse_args
from bert.errors import UsageError

SCRIPT = """
import json, pathlib, subprocess, sys, time
what, path = sys.argv[1], sys.argv[sys.argv.index("--json") + 1]
if what == "hang":
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    pathlib.Path(path + ".child").write_text(str(child.pid))
    time.sleep(60)
if what == "refuse":
    sys.exit("a first line\\nerror: --preset huge | no such size")
pathlib.Path(path).write_text(json.dumps({"rows": [{"contender": "this suite", "rate": 1234.4}]}))
"""


@pytest.fixture
def parts(tmp_path, monkeypatch) -> Path:
    (tmp_path / "part.py").write_text(SCRIPT)
    row = Row("rate", "rate", "sequences/s", least=1200)
    made = {name: Part(f"python {tmp_path}/part.py {name}", 1, (row,)) for name in ("hang", "refuse", "work")}
    monkeypatch.setattr(gpu_check, "PARTS", made)
    return tmp_path


def test_a_part_that_fails_or_hangs_is_a_row(parts, monkeypatch, capsys):
    monkeypatch.setattr(gpu_check, "find_gpu", lambda: ("One GPU", ""))
    main(GpuCheckConfig(output=str(parts / "out" / "check.md")))
    lines = (parts / "out" / "check.md").read_text(encoding="utf8").splitlines()
    assert lines[0].startswith("One GPU; ")
    assert lines[2:] == [
        "| | measured | goal | met | command |",
        "|---|---|---|---|---|",
        "| rate | not measured: out of time after 1 s | at least 1,200 sequences/s |  "
        f"| `python {parts}/part.py hang` |",
        "| rate | not measured: failed: error: --preset huge / no such size | at least 1,200 sequences/s |  "
        f"| `python {parts}/part.py refuse` |",
        f"| rate | 1,234 sequences/s | at least 1,200 sequences/s | yes | `python {parts}/part.py work` |",
    ]
    child = Path("/proc", (parts / "out" / "check" / "hang.json.child").read_text())
    deadline = time.monotonic() + 10
    while child.exists() and "Z" not in (child / "stat").read_text().split()[2]:
        assert time.monotonic() < deadline, "what the part started is still running"
        time.sleep(0.05)


def test_an_old_result_is_not_taken_for_a_new_one(parts):
    (parts / "refuse.json").write_text(json.dumps({"rows": [{"rate": 1}]}))
    assert run_part("refuse", 5, parts).rows == ()


def test_without_a_gpu_nothing_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu_check, "find_gpu", lambda: ("no GPU", "no GPU here"))
    monkeypatch.setattr(gpu_check, "run_part", None)
    main(GpuCheckConfig(output=str(tmp_path / "check.md")))
    rows = (tmp_path / "check.md").read_text(encoding="utf8").splitlines()[4:]
    assert len(rows) == sum(len(part.rows) for part in PARTS.values())
    assert all("| not measured: no GPU here |" in row for row in rows)
    assert [path.name for path in tmp_path.iterdir()] == ["check.md"]


def test_what_is_not_reached_in_time_is_named(parts, monkeypatch, capsys):
    monkeypatch.setattr(gpu_check, "find_gpu", lambda: ("One GPU", ""))
    monkeypatch.setattr(gpu_check, "MARGIN", 60)
    main(GpuCheckConfig(output=str(parts / "check.md"), parts=["work"], minutes=1))
    assert "| not measured: not reached in time |" in (parts / "check.md").read_text(encoding="utf8")


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (Row("a", "share", "share", least=0.75), "| a | 74.9 % | at least 75.0 % | no | `c` |"),
        (Row("a", "floor", "ratio", most=1.2), "| a | 1.20 × | at most 1.20 × | yes | `c` |"),
        (Row("a", "ms", "ms", peer("this suite, *")), "| a | 5.2 ms |  |  | `c` |"),
        (Row("a", "ms", "ms", peer("this suite", "x")), "| a | not measured: no such result |  |  | `c` |"),
        (Row("a", "x", "ms", needs="nowhere_at_all"), "| a | not measured: nowhere_at_all is missing |  |  | `c` |"),
        (Row("a", "zero", "tests", most=0), "| a | 0 | at most 0 | yes | `c` |"),
    ],
)
def test_a_row_of_the_table(row, expected):
    results = [
        {"contender": "this suite", "share": 0.749, "floor": 1.2, "zero": 0},
        {"contender": "this suite, 1 x 8 sequences", "ms": 5.24},
    ]
    assert table_row(row, "c", Outcome(results)) == expected


def test_the_counts_of_pytest():
    line = "2 failed, 31 passed, 1 skipped, 900 deselected, 1 error in 41.20s"
    assert read_tests(f"FAILED a\n{line}\n").rows == [{"passed": 31, "failed": 3}]
    assert read_tests("ERROR: file not found").problem == "failed: ERROR: file not found"


def test_a_part_that_is_unknown():
    with pytest.raises(UsageError, match="^--parts squads: unknown, expected any of tests, lamb"):
        main(GpuCheckConfig(parts=["squads"]))


def test_the_commands_exist():
    """Each is understood by its benchmark."""
    configs = {
        "pretrain.py": pretrain.BenchmarkConfig,
        "squad.py": squad.SquadBenchmarkConfig,
        "lamb.py": lamb.LambBenchmarkConfig,
        "fp8_shapes.py": fp8_shapes.Fp8ShapesConfig,
    }
    for name in PARTS:
        if name != "tests":
            script, *flags = words_of(name, Path("rows.json"))[1:]
            parse_args(configs[Path(script).name], flags)


def test_fp8_shapes_run(tmp_path, capsys):
    words = ["--device", "cpu", "--tokens", "16", "--scale", "64", "--rounds", "1", "--steps", "1"]
    fp8_shapes.main(parse_args(fp8_shapes.Fp8ShapesConfig, [*words, "--json", str(tmp_path / "rows.json")]))
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert [row["contender"] for row in rows] == [row.where["contender"] for row in PARTS["shapes"].rows]
