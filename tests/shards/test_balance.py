import json
import os
import re
import resource
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from shards.shard_folders import bytes_of, make_folder, rows_of  # pyright: ignore[reportMissingImports]

from bert.config import parse_args
from bert.data.formats.table import SWAP, find_shards, inspect_shard
from bert.data.manifest import describe_shard, read_manifest
from bert.errors import UsageError
from bert.shards import balance as module
from bert.shards.balance import BalanceConfig, balance
from bert.shards.bins import Bin, cut

ROOT = Path(__file__).parents[2]

PARTS = {f"part.{i}.parquet": size for i, size in enumerate([7, 0, 12, 3])} | {"part.10.parquet": 9}
BINNED = {f"part.{i}.parquet_{b}": size for i in range(3) for b, size in enumerate([11 + i, 5, 20 - i])}


def run(folder: Path, shards: int, **options) -> None:
    """Balance in this process, quietly."""
    balance(BalanceConfig(str(folder), shards, **{"num_workers": 1, "disable_progress_bar": True, **options}))


def sizes_of(folder: Path) -> dict[str, int]:
    return {path.name: inspect_shard(path).num_samples for path in find_shards(folder)}


def test_rows_are_cut_evenly_in_natural_order():
    files = [Path(name) for name in ("a.parquet", "b.parquet", "c.parquet")]
    a, b, c = files
    assert list(cut(Bin("", files, [7, 0, 3]), 10, 3)) == [
        ("shard-0.parquet", [(a, 0, 3)]),
        ("shard-1.parquet", [(a, 3, 6)]),
        ("shard-2.parquet", [(a, 6, 7), (c, 0, 3)]),
    ]
    assert list(cut(Bin("", files, [1, 1, 1]), 2, 1)) == [("shard-0.parquet", [(a, 0, 1), (b, 0, 1)])]


@pytest.mark.parametrize(
    ("parts", "names"),
    [
        (PARTS, "shard-{}.parquet"),
        ({"a_0.hdf5": 13, "a_1.h5": 18}, "shard-{}.hdf5"),
        ({"a.tfrecord-00000-of-00002": 13, "a.tfrecord-00001-of-00002": 18}, "shard-{}.tfrecord"),
        ({"part-00000": 13, "part-00001": 18}, "part-{}"),
    ],
    ids=["parquet", "hdf5", "tfrecord", "ofrecord"],
)
def test_every_sample_occurs_once_in_shards_of_one_size(tmp_path, parts, names):
    folder = make_folder(tmp_path / "shards", parts)
    before = rows_of(folder)
    run(folder, 4)
    assert sizes_of(folder) == {names.format(0): 7, names.format(1): 8, names.format(2): 8, names.format(3): 8}
    assert rows_of(folder) == before
    expected = {*(names.format(i) for i in range(4)), "manifest.json", ".num_samples.json"}
    assert {p.name for p in folder.iterdir()} == expected


def test_the_manifest_keeps_its_settings_and_lists_the_new_shards(tmp_path):
    folder = make_folder(tmp_path / "shards", PARTS, seed=7, duplicate_factor=5)
    settings = read_manifest(folder).settings
    run(folder, 3)
    manifest = read_manifest(folder)
    assert manifest.settings == settings
    assert manifest.shards == {path.name: describe_shard(path) for path in find_shards(folder)}


def test_lddl_finds_the_sizes_beside_the_shards(tmp_path):
    folder = make_folder(tmp_path / "shards", BINNED)
    run(folder, 5)
    counts = json.loads((folder / ".num_samples.json").read_text())
    assert counts == sizes_of(folder)
    assert len(counts) == 15


def test_order_of_rows_is_that_of_the_numbers_in_the_names(tmp_path):
    """part.10 comes last, so the last shard ends with its rows."""
    folder = make_folder(tmp_path / "shards", PARTS)
    last = rows_of_file(folder / "part.10.parquet")
    run(folder, 4)
    assert rows_of_file(folder / "shard-3.parquet") == last[-8:]


def rows_of_file(path: Path) -> list:
    folder = path.parent / "alone"
    folder.mkdir()
    shutil.copy(path, folder)
    rows = list(rows_of(folder).elements())
    shutil.rmtree(folder)
    return rows


def test_bins_are_balanced_separately(tmp_path):
    folder = make_folder(tmp_path / "shards", BINNED)
    before = rows_of(folder)
    run(folder, 4)
    totals = {"0": 36, "1": 15, "2": 57}
    for number, total in totals.items():
        sizes = [count for name, count in sizes_of(folder).items() if name.endswith(f"_{number}")]
        assert (len(sizes), sum(sizes), max(sizes) - min(sizes) <= 1) == (4, total, True)
    assert rows_of(folder) == before


def test_one_bin_leaves_the_others_alone(tmp_path):
    folder = make_folder(tmp_path / "shards", BINNED)
    before, kept = rows_of(folder), {name: data for name, data in bytes_of(folder).items() if name.endswith("_2")}
    run(folder, 2, bin_ids=[1, 0])
    after = bytes_of(folder)
    assert {name: after[name] for name in kept} == kept
    expected = {*kept, *(f"shard-{i}.parquet_{b}" for i in (0, 1) for b in (0, 1))}
    assert set(sizes_of(folder)) == expected == set(read_manifest(folder).shards)
    assert rows_of(folder) == before
    run(folder, 2, bin_ids=[2])
    assert set(json.loads((folder / ".num_samples.json").read_text())) == set(sizes_of(folder))
    assert rows_of(folder) == before


@pytest.mark.parametrize("keep", [True, False])
def test_another_folder_takes_the_shards(tmp_path, keep):
    folder = make_folder(tmp_path / "shards", PARTS)
    before, content = rows_of(folder), bytes_of(folder)
    run(folder, 4, outdir=str(tmp_path / "new" / "balanced"), keep_orig=keep)
    assert rows_of(tmp_path / "new" / "balanced") == before
    assert bytes_of(folder) == (content if keep else {})
    assert read_manifest(tmp_path / "new/balanced").shards.keys() == sizes_of(tmp_path / "new/balanced").keys()


def test_bins_may_be_moved_to_another_folder_one_by_one(tmp_path):
    folder = make_folder(tmp_path / "shards", BINNED)
    before = rows_of(folder)
    run(folder, 2, outdir=str(tmp_path / "new"), bin_ids=[0])
    assert set(read_manifest(folder).shards) == set(sizes_of(folder)) == {n for n in BINNED if not n.endswith("_0")}
    with pytest.raises(UsageError, match="--outdir .*new: holds shard-0.parquet_0 already"):
        run(make_folder(tmp_path / "others", BINNED), 2, outdir=str(tmp_path / "new"))
    run(folder, 2, outdir=str(tmp_path / "new"), bin_ids=[1, 2])
    assert rows_of(tmp_path / "new") == before
    assert set(read_manifest(tmp_path / "new").shards) == set(sizes_of(tmp_path / "new"))
    assert bytes_of(folder) == {}


def test_subfolders_are_searched_and_their_manifests_updated(tmp_path):
    folder = tmp_path / "shards"
    make_folder(folder / "wiki", BINNED)
    make_folder(folder / "books", {name: size for name, size in BINNED.items() if name.endswith("_0")}, bin_size=16)
    before = rows_of(folder)
    run(folder, 2, bin_ids=[0])
    assert rows_of(folder) == before
    assert not list((folder / "books").iterdir())
    assert set(read_manifest(folder / "wiki").shards) == {name for name in BINNED if not name.endswith("_0")}
    assert set(read_manifest(folder).shards) == {"shard-0.parquet_0", "shard-1.parquet_0"}


def test_without_a_manifest_there_is_none_afterwards(tmp_path, capsys):
    folder = make_folder(tmp_path / "shards", PARTS, listed=False)
    run(folder, 4)
    assert read_manifest(folder) is None
    assert "no manifest.json" in capsys.readouterr().out


def test_the_same_command_gives_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        make_folder(tmp_path / name, PARTS)
    run(tmp_path / "one", 4)
    run(tmp_path / "two", 4)
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")
    run(tmp_path / "two", 3)
    run(tmp_path / "two", 4)
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")


def test_lddl_gets_shards_that_differ_by_exactly_one(tmp_path, capsys):
    folder = make_folder(tmp_path / "shards", {"part.0.parquet_0": 10, "part.1.parquet_0": 10, "part.0.parquet_1": 19})
    before = rows_of(folder)
    run(folder, 4, lddl_compatible=True)
    sizes = sizes_of(folder)
    assert sorted(n for name, n in sizes.items() if name.endswith("_0")) == [4, 5, 5, 5]
    assert sorted(n for name, n in sizes.items() if name.endswith("_1")) == [4, 5, 5, 5]
    lost = before - rows_of(folder)
    assert [row[0] for row in lost.elements()] == ["0"]
    assert "bin 0: 19 samples in 4 shards of 4 to 5; one sample left out" in capsys.readouterr().out


@pytest.mark.slow
def test_the_command_line_works_on_several_processes(tmp_path):
    folder = make_folder(tmp_path / "shards", PARTS)
    before = rows_of(folder)
    command = [sys.executable, ROOT / "data/balance.py", "--indir", folder, "--num-shards", "4", "--num-workers", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "31 samples in 4 shards of 7 to 8" in done.stdout
    assert "Balancing" in done.stderr
    assert rows_of(folder) == before
    run(make_folder(tmp_path / "again", PARTS), 4)
    assert bytes_of(tmp_path / "again") == bytes_of(folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_shards": 6}, r"--num_shards 6: bin 1 has 5 samples, expected no more shards"),
        ({"num_shards": 5, "lddl_compatible": True}, r"--num_shards 5: bin 1 has 5 samples"),
        ({"num_shards": 1, "lddl_compatible": True}, r"--num_shards 1: expected at least 2"),
        ({"bin_ids": [0, 7]}, r"--bin_ids 7: .*shards holds bins 0 1"),
        ({"keep_orig": True}, r"--keep_orig: .*expected another folder as --outdir"),
        ({"outdir": "shards/balanced"}, r"--outdir .*balanced: expected a folder apart from --indir"),
        ({"outdir": "."}, r"--outdir .*: expected a folder apart from --indir"),
        ({"indir": "nowhere"}, r"--indir .*nowhere: expected a folder"),
    ],
)
def test_wrong_flags_are_named_and_change_nothing(tmp_path, options, message):
    folder = make_folder(tmp_path / "shards", {"part.0.parquet_0": 10, "part.0.parquet_1": 5})
    before = bytes_of(tmp_path)
    given = {"indir": "shards", "num_shards": 2, "num_workers": 1, **options}
    given |= {name: str(tmp_path / given[name]) for name in ("indir", "outdir") if name in given}
    with pytest.raises(UsageError, match=message):
        balance(BalanceConfig(**given))
    assert bytes_of(tmp_path) == before
    assert {p.name for p in tmp_path.iterdir()} == {"shards", "vocab.txt"}
    assert folder.exists()


def damaged(folder: Path) -> None:
    path = folder / "part.2.parquet"
    path.write_bytes(path.read_bytes()[:-100])


def miscounted(folder: Path) -> None:
    text = (folder / "manifest.json").read_text().replace('"num_samples": 12', '"num_samples": 13')
    (folder / "manifest.json").write_text(text)


def mixed(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    make_folder(folder, {"a.hdf5": 5}, listed=False)


def half_binned(folder: Path) -> None:
    (folder / "part.2.parquet").rename(folder / "part.2.parquet_0")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (damaged, r"part.2.parquet: unreadable shard"),
        (miscounted, r"part.2.parquet: 12 samples, manifest.json says 13"),
        (lambda folder: (folder / "part.2.parquet").unlink(), r"shards: no part.2.parquet, which manifest.json lists"),
        (
            lambda folder: shutil.copy(folder / "part.2.parquet", folder / "x.parquet"),
            r"x.parquet: not in manifest.json",
        ),
        (mixed, r"shards of one format"),
        (half_binned, r"all with bins or all without"),
        (lambda folder: make_folder(folder / "sub", {"a.parquet": 3}, vocab_sha256="0"), r"different vocab_sha256"),
        (lambda folder: make_folder(folder / "sub", {"a.parquet": 3}, static=False), r"different masking"),
    ],
)
def test_wrong_shards_are_named_and_left_alone(tmp_path, harm, message):
    folder = make_folder(tmp_path / "shards", PARTS)
    harm(folder)
    before = bytes_of(folder)
    with pytest.raises(UsageError, match=message):
        run(folder, 4)
    assert bytes_of(folder) == before


def test_test_shards_do_not_end_up_among_training_shards(tmp_path):
    """Only names tell them from training shards, so they would be found beside shard-0.hdf5."""
    folder = make_folder(tmp_path / "shards", {"wiki_training_0.hdf5": 9, "wiki_test_0.hdf5": 9}, listed=False)
    with pytest.raises(UsageError, match=r"wiki_test_0.hdf5: a test shard.*--outdir"):
        run(folder, 2)
    run(folder, 2, outdir=str(tmp_path / "new"))
    assert [path.name for path in folder.iterdir()] == ["wiki_test_0.hdf5"]
    assert sum(sizes_of(tmp_path / "new").values()) == 9


def test_a_disk_without_room_is_found_before_the_work(tmp_path, monkeypatch):
    folder = make_folder(tmp_path / "shards", PARTS)
    before = bytes_of(folder)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 100))
    with pytest.raises(UsageError, match=r"shards: 0.0 GB are free, the balanced shards need"):
        run(folder, 4)
    assert bytes_of(folder) == before


@pytest.mark.parametrize("suffix", ["parquet", "hdf5"])
@pytest.mark.parametrize("outdir", [None, "new"])
def test_a_full_disk_leaves_everything_unchanged(tmp_path, suffix, outdir):
    folder = make_folder(tmp_path / "shards", {f"part.{i}.{suffix}": 300 for i in range(3)})
    before = bytes_of(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    smallest = min(path.stat().st_size for path in folder.glob("part.*"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (smallest, limits[1]))  # enough for a shard of 100, not for one of 800
    try:
        with pytest.raises(UsageError, match=rf"shard-0.{suffix}: .*File too large"):
            run(folder, 1, outdir=outdir and str(tmp_path / outdir))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert bytes_of(tmp_path) == before
    assert {p.name for p in tmp_path.iterdir()} == {"shards", "vocab.txt"}


# Kills the process at its N-th change of a file below the folder, for N = 1, 2, ... until it survives. One process
# forks one child for each N, which saves the seconds that every start of an interpreter takes.
KILLER = """
import os, shutil, signal, sys
from pathlib import Path
from bert.config import parse_args
from bert.shards.balance import BalanceConfig, balance
import bert.data.formats.parquet

CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "open", "os.truncate"}
root, flags = Path(sys.argv[1]), sys.argv[2:]

def run(last):
    seen = 0
    def hook(event, arguments):
        nonlocal seen
        if event in CHANGES and (event != "open" or isinstance(arguments[1], str) and arguments[1][0] in "wax"):
            seen += 1
            if seen == last:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)
    balance(parse_args(BalanceConfig, flags))

number, killed = 0, True
while killed:
    number += 1
    folder = root / str(number)
    shutil.copytree(root / "0", folder)
    os.chdir(folder)
    child = os.fork()
    if not child:
        sys.stdout = open(os.devnull, "w")
        run(number)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    killed = os.WIFSIGNALED(status)
    assert killed or status == 0, status
print(number)
"""

IN_PLACE = ["--indir", "shards", "--num_shards", "2"]
ELSEWHERE = ["--indir", "shards", "--num_shards", "2", "--outdir", "new", "--bin_ids", "0"]


def results_in(folder: Path) -> dict[str, bytes]:
    """Return the content of every file but those of a balancing that was killed."""
    return {name: data for name, data in bytes_of(folder).items() if not re.search(r"\.balance/|\.lock$", name)}


def kill_everywhere(tmp_path: Path, flags: list[str]) -> list[Path]:
    """Return the folders of runs that were killed at their first, second, ... change; the last run was not killed."""
    quiet = ["--num_workers", "1", "--disable_progress_bar"]
    command = [sys.executable, "-c", KILLER, tmp_path, *flags, *quiet]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=250, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr
    return [tmp_path / str(number) for number in range(1, int(done.stdout) + 1)]


@pytest.mark.slow
@pytest.mark.parametrize("flags", [IN_PLACE, ELSEWHERE], ids=["in place", "elsewhere"])
def test_a_run_killed_anywhere_and_restarted_ends_as_if_never_killed(tmp_path, flags, monkeypatch):
    """In place, shard-0 is both an old and a new name, and shard-2 only an old one."""
    sizes = {f"shard-{i}.parquet_{b}": n for b in (0, 1) for i, n in enumerate([3, 5, 4])}
    make_folder(tmp_path / "0/shards", sizes)
    rows, before = rows_of(tmp_path / "0/shards"), bytes_of(tmp_path / "0/shards")
    *killed, straight = kill_everywhere(tmp_path, flags)
    expected = bytes_of(straight)
    assert len(killed) > 25
    seen = Counter()
    for folder in killed:
        committed = [path for path in (folder / "new", folder / "shards") if (path / SWAP).exists()]
        visible = results_in(folder / "shards")
        if committed:
            with pytest.raises(UsageError, match="interrupted here"):
                find_shards(committed[0])
        elif visible != before:
            without_work = results_in(folder)
            assert without_work == expected  # only tidying is left
        seen["committed" if committed else "before" if visible == before else "done"] += 1
        monkeypatch.chdir(folder)
        if visible == before or committed:
            balance(parse_args(BalanceConfig, [*flags, "--num_workers", "1", "--disable_progress_bar"]))
        after = results_in(folder)
        assert after == expected, folder
        assert sum((rows_of(path) for path in (folder / "shards", folder / "new") if path.exists()), Counter()) == rows
    assert min(seen["before"], seen["committed"]) > 5, seen


def test_two_commands_do_not_work_on_one_folder(tmp_path):
    folder = make_folder(tmp_path / "shards", PARTS)
    before = bytes_of(folder)
    hold = "import sys; from bert.lock import owning\nwith owning(sys.argv[1], ''): print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", hold, str(folder)]
    with (
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other,
        pytest.raises(UsageError, match=rf"shards: process {other.pid} on .* writes there"),
    ):
        assert other.stdout and other.stdout.readline()
        run(folder, 4)
    assert bytes_of(folder) == before


@pytest.mark.parametrize(
    "swap",
    [
        {"removals": ["../precious"]},
        {"removals": ["link/precious"]},
        {"removals": [], "staged": "link/precious"},
        {"removals": ["precious"], "source": "..", "target": ""},
        {"removals": ["precious"], "source": "..", "target": ".."},
        {"removals": [], "more": 1},
        {},
        [],
    ],
    ids=repr,
)
def test_a_swap_from_a_stranger_does_not_leave_its_folder(tmp_path, swap, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "precious").write_text("kept")
    folder = make_folder(tmp_path / "shards", PARTS)
    (folder / "link").symlink_to(tmp_path)
    staged = folder / ".balance/new" / (swap.pop("staged", "") if swap else "") / "file"
    staged.parent.mkdir(parents=True)
    staged.write_text("stranger")
    request = {"num_shards": 4, "bin_ids": None, "lddl_compatible": False}
    known = {"run": "0", "source": "", "target": "", "request": request}
    (folder / SWAP).write_text(json.dumps(known | swap if swap else swap))
    shards = set(folder.glob("*.parquet"))
    try:
        run(folder, 4)
        assert swap["source"]
    except UsageError as error:
        assert re.search(r"swap.json: (not a file of|.* is outside of the folder)", str(error))
        assert set(folder.glob("*.parquet")) == shards
    assert (tmp_path / "precious").read_text() == "kept"
    assert {path.name for path in tmp_path.iterdir()} == {"precious", "shards", "vocab.txt"}


def test_what_a_killed_run_left_is_cleared_away(tmp_path):
    folder = make_folder(tmp_path / "shards", {"wiki_training_0.hdf5": 9})
    rows = rows_of(folder)
    (folder / ".balance/0123abcd").mkdir(parents=True)
    shutil.copy(folder / "wiki_training_0.hdf5", folder / ".balance/0123abcd/shard-0.hdf5")
    run(folder, 2)
    assert rows_of(folder) == rows
    assert {path.name for path in folder.iterdir()} == {
        "shard-0.hdf5",
        "shard-1.hdf5",
        "manifest.json",
        ".num_samples.json",
    }


SLOW = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
from bert.shards.pool import run_parallel

def work(task):
    time.sleep(0.05)
    if task == int(sys.argv[2]):
        os.kill(os.getpid(), 9)
    return os.getpid()

if __name__ == "__main__":
    for worker in run_parallel(work, range(10_000), 2, description="", show=False):
        print(worker, flush=True)
"""


def test_workers_end_with_a_killed_command(tmp_path):
    """Orphans would write while the next run works."""
    (tmp_path / "slow.py").write_text(SLOW)
    with subprocess.Popen(
        [sys.executable, tmp_path / "slow.py", ROOT, "-1"], stdout=subprocess.PIPE, text=True
    ) as command:
        worker = int(command.stdout.readline())
        assert Path(f"/proc/{worker}").exists()
        command.kill()
        for _ in command.stdout:  # ends when no process has it open any more
            pass
    assert not Path(f"/proc/{worker}").exists() or "zombie" in Path(f"/proc/{worker}/status").read_text()


def test_a_killed_worker_ends_the_command(tmp_path):
    (tmp_path / "slow.py").write_text(SLOW)
    done = subprocess.run([sys.executable, tmp_path / "slow.py", ROOT, "3"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "UsageError: --num_workers 2: a worker process was killed, probably for lack of memory" in done.stderr


def test_an_error_in_a_worker_ends_the_command(tmp_path):
    folder = make_folder(tmp_path / "shards", PARTS)
    content = bytearray((folder / "part.2.parquet").read_bytes())
    content[100:600] = bytes(500)
    (folder / "part.2.parquet").write_bytes(content)
    before = bytes_of(folder)
    with pytest.raises(UsageError, match=r"part.2.parquet: unreadable shard"):
        run(folder, 4, num_workers=2)
    assert bytes_of(folder) == before


def test_shards_behind_a_link_are_balanced_too_but_not_removed(tmp_path):
    real, folder = make_folder(tmp_path / "real", {"b.parquet": 5}), make_folder(tmp_path / "shards", {"a.parquet": 8})
    (folder / "more").symlink_to("../real")
    with pytest.raises(UsageError, match=f"--indir {folder}: {folder}/more is behind a link"):
        run(folder, 2)
    with pytest.raises(UsageError, match="--outdir .*expected a folder apart from --indir, which links to it"):
        run(folder, 2, outdir=str(real), keep_orig=True)
    run(folder, 2, outdir=str(tmp_path / "new"), keep_orig=True)
    assert sizes_of(tmp_path / "new") == {"shard-0.parquet": 6, "shard-1.parquet": 7}
    assert rows_of(tmp_path / "new") == rows_of(folder)
    assert {path.name for path in real.iterdir()} == {"b.parquet", "manifest.json"}
