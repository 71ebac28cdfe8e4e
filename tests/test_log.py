"""DLLogger lines, parsed by rules written here from the description of the format."""

import inspect
import json
import math
import re
import sys
import types
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from tqdm import tqdm

from bert.config import parse_args
from bert.errors import UsageError
from bert.log import LogConfig, build_logger, progress, resolve_log

STDOUT_LINE = re.compile(r"DLL (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+) - (.*)")


@pytest.fixture(autouse=True)
def no_dllogger(monkeypatch):
    """Use the built-in writer, even on a machine that has NVIDIA's."""
    monkeypatch.setitem(sys.modules, "dllogger", None)


def refuse_constant(name):
    raise AssertionError(f"bare {name} in JSON")


def read(path: Path) -> list[dict]:
    lines = path.read_text().splitlines()
    assert all(line.startswith("DLLL {") for line in lines)
    return [json.loads(line.removeprefix("DLLL "), parse_constant=refuse_constant) for line in lines]


def test_log_line_fields_and_types(tmp_path):
    path = tmp_path / "new" / "dllogger.json"
    with build_logger(path, None, is_main=True) as logger:
        logger.log((0, 10), {"average_loss": 10.5, "skipped_steps": 0})
    (event,) = read(path)
    assert list(event) == ["timestamp", "datetime", "elapsedtime", "type", "step", "data"]
    assert event["type"] == "LOG"
    assert event["step"] == [0, 10]
    assert event["data"] == {"average_loss": 10.5, "skipped_steps": 0}
    assert all(isinstance(event[name], str) for name in ("timestamp", "datetime", "elapsedtime"))
    date = datetime.fromisoformat(event["datetime"])
    assert date.utcoffset() == timedelta(0)
    assert date.timestamp() == pytest.approx(float(event["timestamp"]), abs=1e-5)
    assert abs(datetime.now(UTC) - date) < timedelta(minutes=1)
    assert 0 <= float(event["elapsedtime"]) < 60


def test_parameter_summary_and_metadata_lines(tmp_path):
    path = tmp_path / "dllogger.json"
    with build_logger(path, None, is_main=True) as logger:
        logger.metadata("final_loss", unit="nats", format=":.3f")
        logger.metadata("plain")
        logger.parameter(SEED=42, Config={"a": [1, None, True]})
        logger.summary({"final_loss": 1.25})
    metadata, plain, parameter, summary = read(path)
    assert list(metadata) == ["timestamp", "elapsedtime", "datetime", "type", "metric", "metadata"]
    assert (metadata["type"], metadata["metric"]) == ("METADATA", "final_loss")
    assert metadata["metadata"] == {"unit": "nats", "format": ":.3f"}
    assert plain["metadata"] == {}
    assert (parameter["step"], parameter["data"]) == ("PARAMETER", {"SEED": 42, "Config": {"a": [1, None, True]}})
    assert (summary["step"], summary["data"]) == ([], {"final_loss": 1.25})


def test_stdout_lines(tmp_path, capsys):
    with build_logger(None, None, is_main=True) as logger:
        logger.metadata("loss", unit="nats", format=":.2f")
        logger.parameter(SEED=42)
        logger.log((0, 10), {"loss": 1.2345, "learning_rate": 0.006})
        logger.log((0, 10, 3), {"loss": 2})
        logger.summary({"loss": float("nan")})
    words = []
    for line in capsys.readouterr().out.splitlines():
        date, text = STDOUT_LINE.fullmatch(line).groups()
        assert abs(datetime.now() - datetime.fromisoformat(date)) < timedelta(minutes=1)  # local time, no zone
        words.append(text)
    assert words == [
        "PARAMETER SEED : 42 ",
        "Training Epoch: 0 Training Iteration: 10  loss : 1.23 nats learning_rate : 0.006 ",
        "Training Epoch: 0 Training Iteration: 10 Validation Iteration: 3  loss : 2.00 nats",
        " loss : NaN nats",
    ]


def test_values_that_json_lacks(tmp_path):
    path = tmp_path / "dllogger.json"
    data = {
        "numpy": np.float32(0.5),
        "count": np.int64(3),
        "array": np.array([1, 2]),
        "scalar": torch.tensor(0.25, requires_grad=True),
        "bf16": torch.tensor(2.0, dtype=torch.bfloat16),
        "vector": torch.tensor([1.0, math.inf]),
        "nan": math.nan,
        "down": -math.inf,
        "numpy_nan": np.float64("nan"),
        "path": Path("a/b"),
        "nested": {1: (np.bool_(True), math.inf)},
    }
    with build_logger(path, None, is_main=True) as logger:
        logger.log((1, 2), data)
    (event,) = read(path)
    assert event["data"] == {
        "numpy": 0.5,
        "count": 3,
        "array": [1, 2],
        "scalar": 0.25,
        "bf16": 2.0,
        "vector": [1.0, "Infinity"],
        "nan": "NaN",
        "down": "-Infinity",
        "numpy_nan": "NaN",
        "path": "a/b",
        "nested": {"1": [True, "Infinity"]},
    }
    assert math.isnan(float(event["data"]["nan"]))
    assert float(event["data"]["down"]) == -math.inf


def test_each_event_is_in_the_file_when_the_call_returns(tmp_path):
    path = tmp_path / "dllogger.json"
    logger = build_logger(path, None, is_main=True)
    for iteration in range(3):
        logger.log((0, iteration), {"loss": 1.0})
        assert len(read(path)) == iteration + 1
    logger.metadata("loss", unit="nats")
    assert len(read(path)) == 4
    logger.close()


def test_a_later_run_appends_even_after_a_torn_line(tmp_path):
    path = tmp_path / "dllogger.json"
    with build_logger(path, None, is_main=True) as logger:
        logger.log((0, 1), {"loss": 2.0})
    with path.open("a") as file:
        file.write('DLLL {"timestamp": "17')  # the run was killed here
    with build_logger(path, None, is_main=True) as logger:
        logger.log((0, 2), {"loss": 1.0})
    first, torn, second = path.read_text().splitlines()
    assert json.loads(first[5:])["step"] == [0, 1]
    assert torn == 'DLLL {"timestamp": "17'
    assert json.loads(second[5:])["step"] == [0, 2]


def test_two_loggers_at_once_and_use_after_close(tmp_path):
    one = build_logger(tmp_path / "one.json", None, is_main=True)
    two = build_logger(tmp_path / "two.json", None, is_main=True)
    one.log((0, 1), {"a": 1})
    two.log((0, 2), {"b": 2})
    one.close()
    one.close()
    one.log((0, 3), {"a": 3})
    two.close()
    assert [event["step"] for event in read(tmp_path / "one.json")] == [[0, 1]]
    assert [event["step"] for event in read(tmp_path / "two.json")] == [[0, 2]]


def test_other_ranks_write_nothing_and_read_no_value(tmp_path, capsys):
    class OnDevice:
        def tolist(self):
            raise AssertionError("read the value, which waits for the device")

    with build_logger(tmp_path / "dllogger.json", tmp_path / "tensorboard", is_main=False) as logger:
        logger.metadata("loss", unit="nats")
        logger.parameter(SEED=1)
        logger.log((0, 1), {"loss": OnDevice()})
        logger.summary({"loss": OnDevice()})
        logger.flush()
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().out == ""


def test_a_path_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"--json_summary .*file/dllogger\.json"):
        build_logger(tmp_path / "file" / "dllogger.json", None, is_main=True)


def test_flags():
    assert parse_args(LogConfig, []) == LogConfig(None, 1, False, None)
    given = parse_args(LogConfig, ["--json-summary", "x.json", "--log_freq", "1.0", "--disable_progress_bar"])
    assert (given.json_summary, given.log_freq, given.disable_progress_bar) == ("x.json", 1, True)
    with pytest.raises(SystemExit) as stop:
        parse_args(LogConfig, ["--log_freq", "0"])
    assert stop.value.code == 2


def test_logs_go_to_the_output_folder_unless_a_flag_says_where(tmp_path):
    assert resolve_log(LogConfig(), "out") == ("out/dllogger.json", "out/tensorboard")
    given = LogConfig("x/log.json", tensorboard_dir="elsewhere")
    assert resolve_log(given, "out") == ("x/log.json", "elsewhere")
    for word in ("", "none"):
        with build_logger(*resolve_log(LogConfig(word, tensorboard_dir=word), tmp_path / "out"), is_main=True):
            assert not (tmp_path / "out").exists()


def test_tensorboard_scalars_by_iteration(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with build_logger(None, tmp_path / "tensorboard", is_main=True) as logger:
        logger.parameter(SEED=42)
        logger.log((0, 10), {"loss": 2.5, "note": "text"})
        logger.log((1, 20), {"loss": torch.tensor(1.5)})
        logger.summary({"final_loss": 1.5})
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(10, 2.5), (20, 1.5)]
    assert [(event.step, event.value) for event in events.Scalars("summary/final_loss")] == [(20, 1.5)]
    assert "parameter/SEED/text_summary" in events.Tags()["tensors"]
    assert "note" not in events.Tags()["scalars"]


def test_missing_tensorboard_is_a_notice(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with build_logger(tmp_path / "dllogger.json", tmp_path / "tensorboard", is_main=True) as logger:
        logger.log((0, 1), {"loss": 1.0})
    assert "tensorboard is not installed" in capsys.readouterr().err
    assert len(read(tmp_path / "dllogger.json")) == 1
    assert not (tmp_path / "tensorboard").exists()


# ---- NVIDIA's dllogger, imitated from its description


class FakeBackend:
    def __init__(self, verbosity):
        self.verbosity = verbosity

    def flush(self):
        pass


class FakeJson(FakeBackend):
    def __init__(self, verbosity, filename, append=False):
        super().__init__(verbosity)
        self.file = open(filename, "a" if append else "w")  # noqa: SIM115

    def log(self, timestamp, elapsedtime, step, data):
        self.write(elapsedtime, type="LOG", step=step, data=data, timestamp=timestamp)

    def metadata(self, timestamp, elapsedtime, metric, metadata):
        self.write(elapsedtime, type="METADATA", metric=metric, metadata=metadata, timestamp=timestamp)

    def write(self, elapsedtime, timestamp, **event):
        times = {"timestamp": str(timestamp.timestamp()), "datetime": "fake", "elapsedtime": str(elapsedtime)}
        self.file.write(f"DLLL {json.dumps({**times, **event})}\n")  # raises on numpy scalars, writes a bare NaN

    def flush(self):
        self.file.flush()


class FakeTruncatingJson(FakeJson):
    def __init__(self, verbosity, filename):
        super().__init__(verbosity, filename)


class FakeStdout(FakeBackend):
    def __init__(self, verbosity, step_format=str):
        super().__init__(verbosity)
        self.step_format, self.known = step_format, {}

    def log(self, timestamp, elapsedtime, step, data):
        def word(name, value):
            known = self.known.get(name, {})
            text = ("{" + known.get("format", "") + "}").format(value)  # a string refuses a number's format
            return f"{name} : {text} {known.get('unit', '')}"

        print(f"DLL {timestamp} - {self.step_format(step)} {' '.join(word(*item) for item in data.items())}")

    def metadata(self, timestamp, elapsedtime, metric, metadata):
        self.known[metric] = metadata


def fake_dllogger(json_backend=FakeJson) -> types.ModuleType:
    module = types.ModuleType("dllogger")
    module.__dict__.update(
        JSONStreamBackend=json_backend,
        StdOutBackend=FakeStdout,
        Verbosity=types.SimpleNamespace(OFF=-1, DEFAULT=0, VERBOSE=1),
    )
    return module


def write_some(path: Path) -> None:
    with build_logger(path, None, is_main=True) as logger:
        logger.metadata("loss", unit="nats", format=":.2f")
        logger.parameter(SEED=42)
        logger.log((0, 10), {"loss": np.float32(1.5), "learning_rate": torch.tensor(0.5)})
        assert len(read(path)) >= 3  # flushed, though dllogger buffers
        logger.summary({"loss": math.nan})


def without_times(events: list[dict]) -> list[dict]:
    return [
        {key: event[key] for key in event if key not in ("timestamp", "datetime", "elapsedtime")} for event in events
    ]


def test_dllogger_writes_the_same_where_it_is_installed(tmp_path, monkeypatch, capsys):
    write_some(tmp_path / "ours.json")
    ours = [STDOUT_LINE.fullmatch(line)[2] for line in capsys.readouterr().out.splitlines()]

    monkeypatch.setitem(sys.modules, "dllogger", fake_dllogger())
    write_some(tmp_path / "theirs.json")
    theirs = [STDOUT_LINE.fullmatch(line)[2] for line in capsys.readouterr().out.splitlines()]

    assert theirs == ours
    events = read(tmp_path / "theirs.json")
    assert {event["datetime"] for event in events} == {"fake"}  # dllogger wrote them
    assert all(abs(datetime.now().timestamp() - float(event["timestamp"])) < 60 for event in events)
    assert without_times(events) == without_times(read(tmp_path / "ours.json"))


@pytest.mark.parametrize("json_backend", [FakeJson, FakeTruncatingJson])
def test_dllogger_twice_appends(tmp_path, monkeypatch, json_backend):
    monkeypatch.setitem(sys.modules, "dllogger", fake_dllogger(json_backend))
    path = tmp_path / "dllogger.json"
    for iteration in (1, 2):
        with build_logger(path, None, is_main=True) as logger:
            logger.log((0, iteration), {"loss": 1.0})
    assert [event["step"] for event in read(path)] == [[0, 1], [0, 2]]


def test_dllogger_drives_tensorboard_too(tmp_path, monkeypatch):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.setitem(sys.modules, "dllogger", fake_dllogger())
    with build_logger(None, tmp_path, is_main=True) as logger:
        logger.log((0, 3), {"loss": 2.0})
    events = accumulator.EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(3, 2.0)]


def test_a_stray_module_named_dllogger_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "dllogger", types.ModuleType("dllogger"))
    with build_logger(tmp_path / "dllogger.json", None, is_main=True) as logger:
        logger.log((0, 1), {"loss": 1.0})
    assert len(read(tmp_path / "dllogger.json")) == 1


def test_the_fake_keeps_the_traps_of_the_real_one(tmp_path):
    assert list(inspect.signature(FakeTruncatingJson).parameters) == ["verbosity", "filename"]
    with pytest.raises(TypeError):
        FakeJson(1, tmp_path / "x").log(datetime.now(), 0.0, [], {"a": np.float32(1)})


# ---- progress bars


class Terminal:
    """A screen as one growing stream: a terminal shows stdout and stderr in the same place."""

    encoding = "utf-8"

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text

    def flush(self):
        pass

    def isatty(self):
        return True


def test_a_log_line_does_not_tear_a_bar(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(sys, "stdout", terminal)
    with build_logger(None, None, is_main=True) as logger, progress(total=10, description="Iteration") as bar:
        bar.update(3)
        bar.refresh()
        logger.log((0, 3), {"loss": 1.0})
    written = re.findall(r"([^\r\n]*)(\r|\n)", terminal.text)
    (line,) = [text for text, _ in written if "loss" in text]
    assert STDOUT_LINE.fullmatch(line)  # the bar left nothing before it on its line
    before = terminal.text[: terminal.text.index("DLL ")]
    assert before.endswith("\r")
    assert before.split("\r")[-2].strip() == ""  # the bar was wiped
    assert "3/10" in terminal.text[terminal.text.index("loss") :]  # and comes back


def test_bar_with_time_remaining_on_a_terminal(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert list(progress(range(3), description="Reading")) == [0, 1, 2]
    assert "Reading: 100%" in terminal.text
    assert re.search(r"\[\d\d:\d\d<", terminal.text)


def test_plain_lines_where_stderr_is_a_file(capsys):
    for _ in progress(range(5000), description="Reading"):
        pass
    text = capsys.readouterr().err
    lines = text.splitlines()
    assert "\r" not in text
    assert len(lines) <= 3  # at the start, at the end, and every ten seconds in between
    assert "5000/5000" in lines[-1]


def test_log_lines_do_not_repeat_a_plain_bar(capsys):
    with build_logger(None, None, is_main=True) as logger, progress(total=50) as bar:
        for iteration in range(50):
            logger.log((0, iteration), {"loss": 1.0})
            bar.update()
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 50
    assert len(captured.err.splitlines()) <= 3


def test_disabled_bar_is_silent_and_still_iterates(capsys):
    bar = progress([1, 2], disable=True)
    assert isinstance(bar, tqdm)
    assert list(bar) == [1, 2]
    assert capsys.readouterr().err == ""
