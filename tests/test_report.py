"""The report: what is read from logs, against values written by hand, and that a figure is drawn."""

import json

import numpy as np
import pytest

from bert.errors import UsageError
from bert.report.__main__ import ReportConfig, main
from bert.report.events import collect, read_events
from bert.report.figure import draw, smooth
from bert.report.table import compare, summarize

PNG = b"\x89PNG\r\n\x1a\n"


def line(step, data, type="LOG"):
    event = {"timestamp": "1.0", "datetime": "x", "elapsedtime": "0.1", "type": type, "step": step, "data": data}
    return f"DLLL {json.dumps(event)}\n"


def phase_log(phase, steps, loss=5.0, **facts):
    text = line("PARAMETER", {"phase": phase, "unigram_mlm_accuracy": 0.05, **facts})
    for step in steps:
        text += line([0, step], {"average_loss": loss + 0.5, "mlm_loss": loss, "nsp_loss": 0.5, "learning_rate": 0.1})
    return text


@pytest.fixture
def write(tmp_path):
    def write(name, text):
        path = tmp_path / name
        path.write_text(text, encoding="utf8")
        return str(path)

    return write


def phases_of(*paths):
    return collect(event for path in paths for event in read_events(path))


def test_two_phases_in_two_files(write):
    first = write("a.json", phase_log(1, [10, 20, 30]))
    second = write("b.json", phase_log(2, [5, 10], loss=2.0, Config={"max_seq_length": 512}))
    one, two = phases_of(first, second)
    assert (one.number, two.number) == (1, 2)
    assert one.points("mlm_loss") == [(10, 5.0), (20, 5.0), (30, 5.0)]
    assert two.points("mlm_loss") == [(5, 2.0), (10, 2.0)]
    assert two.facts["Config"] == {"max_seq_length": 512}


def test_two_phases_in_one_file_are_the_same(write):
    texts = phase_log(1, [10, 20, 30]), phase_log(2, [5, 10])
    together = phases_of(write("both.json", "".join(texts)))
    apart = phases_of(write("a.json", texts[0]), write("b.json", texts[1]))
    assert [phase.steps for phase in together] == [phase.steps for phase in apart]


def test_a_resumed_run_replaces_the_steps_since_its_checkpoint(write):
    text = phase_log(1, [1, 2, 3, 4], loss=7.0) + phase_log(1, [3, 4, 5], loss=6.0)
    (phase,) = phases_of(write("a.json", text))
    assert phase.points("mlm_loss") == [(1, 7.0), (2, 7.0), (3, 6.0), (4, 6.0), (5, 6.0)]


def test_a_run_that_started_anew_replaces_everything(write):
    text = phase_log(1, [1, 2, 3, 4], loss=7.0) + phase_log(1, [1, 2], loss=6.0)
    (phase,) = phases_of(write("a.json", text))
    assert phase.points("mlm_loss") == [(1, 6.0), (2, 6.0)]


def test_an_evaluation_joins_the_report_of_its_step(write):
    text = phase_log(1, [1, 2]) + line([0, 2], {"eval_mlm_accuracy": 0.25})
    (phase,) = phases_of(write("a.json", text))
    assert phase.steps[2]["mlm_loss"] == 5.0
    assert phase.steps[2]["eval_mlm_accuracy"] == 0.25
    assert phase.last_step == 2


@pytest.mark.parametrize("garbage", ['DLLL {"timestamp": "1.0", "st', "DLLL ", "DLLL 7\n", "Traceback:\n", "\xff\n"])
def test_unfinished_and_foreign_lines_are_skipped(write, garbage):
    at_the_end = write("end.json", phase_log(1, [1, 2]) + garbage)
    in_the_middle = write("middle.json", phase_log(1, [1]) + garbage.rstrip() + "\n" + line([0, 2], {"mlm_loss": 5.0}))
    for path in (at_the_end, in_the_middle):
        (phase,) = phases_of(path)
        assert phase.points("mlm_loss") == [(1, 5.0), (2, 5.0)]


def test_logs_of_nvidias_scripts(write):
    text = line("PARAMETER", {"train_start": True}) + line([0, 4], {"step_loss": 9.0, "learning_rate": 0.1})
    text += line([0, 8], {"average_loss": 8.0}) + line([], {"e2e_train_time": 12.5})
    (phase,) = phases_of(write("a.json", text))
    assert phase.number == 1
    assert phase.points("average_loss", "step_loss") == [(4, 9.0), (8, 8.0)]
    assert phase.summary == {"e2e_train_time": 12.5}


def cells_of(table):
    """Return name -> cells of the rows of a Markdown table."""
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()]
    return {row[0]: row[1:] for row in rows}


def test_the_table_holds_the_final_numbers(write):
    evaluations = [(1, 0.10), (2, 0.25)]
    text = phase_log(1, [1, 2], Config={"max_seq_length": 128, "learning_rate": 0.006})
    text += "".join(line([0, step], {"eval_mlm_accuracy": value}) for step, value in evaluations)
    text += line([0, 3], {"mlm_loss": 2.0, "tokens_per_second": 1234.0}) + line([], {"e2e_train_time": 61.0})
    table = summarize(phases_of(write("a.json", text), write("b.json", phase_log(2, [1]))))
    cells = cells_of(table)
    assert cells[""] == ["phase 1", "phase 2"]
    assert cells["optimizer steps"] == ["3", "1"]
    assert cells["sequence length"] == ["128", ""]
    assert cells["masked-token loss"] == ["4.000", "5.000"]  # (5 + 5 + 2) / 3
    assert cells["held-out masked-token accuracy"] == ["25.00%", ""]
    assert cells["always the most frequent token"] == ["5.00%", "5.00%"]
    assert cells["tokens/s, median"] == ["1,234", ""]
    assert cells["training time, s"] == ["61", ""]
    assert "held-out next-sentence accuracy" not in cells


def finetuning_log(checkpoint, **scores):
    text = line("PARAMETER", {"Config": {"init_checkpoint": checkpoint, "learning_rate": 0.002}})
    return text + line([0, 50], {"step_loss": 2.0}) + line([0, 100], {"step_loss": 1.0}) + line([], scores)


def test_fine_tuning_runs_stand_side_by_side(write):
    pretrained = finetuning_log("results/ckpt_2400.pt", exact_match=46.0, F1=54.6712)
    fresh = finetuning_log(None, exact_match=30.2222, F1=42.4)
    cells = cells_of(compare([*phases_of(write("a.json", pretrained)), *phases_of(write("b.json", fresh))]))
    assert cells[""] == ["from ckpt_2400.pt", "from random weights"]
    assert cells["optimizer steps"] == ["100", "100"]
    assert cells["training loss"] == ["1.500", "1.500"]
    assert cells["exact match"] == ["46", "30.22"]
    assert cells["F1"] == ["54.67", "42.4"]
    assert "training time, s" not in cells


def test_smoothing_is_a_centred_mean():
    assert smooth([0.0, 3.0, 6.0, 0.0], 3) == [1.5, 3.0, 3.0, 3.0]
    assert smooth([0.0, 3.0, 6.0], 1) == [0.0, 3.0, 6.0]


def points_of(drawn):
    return np.asarray(drawn.get_xydata()).tolist()


def test_phase_2_is_drawn_after_phase_1(write):
    evaluation = line([0, 2], {"eval_mlm_accuracy": 0.25, "eval_nsp_accuracy": 0.75})
    paths = write("a.json", phase_log(1, [1, 2]) + evaluation), write("b.json", phase_log(2, [1, 2]) + evaluation)
    figure = draw(phases_of(*paths))
    loss, _, _, masked, sentence, _ = figure.axes
    trained = [points_of(drawn) for drawn in loss.lines]
    assert [[1, 5], [2, 5]] in trained
    assert [[3, 5], [4, 5]] in trained
    assert [[2, 0], [2, 1]] in trained  # the line between the phases
    held_out, baseline = [drawn for drawn in masked.lines if not str(drawn.get_label()).startswith("_")]
    assert points_of(held_out) == [[2, 0.25]]
    assert points_of(baseline) == [[0, 0.05], [2, 0.05]]
    assert baseline.get_linestyle() == "--"
    assert sentence.get_title(loc="right") == "75.0% / 75.0%"


def test_a_panel_without_data_says_so(write):
    figure = draw(phases_of(write("a.json", phase_log(1, [1, 2]))))
    texts = [[text.get_text() for text in axes.texts] for axes in figure.axes]
    assert texts == [[], [], [], [], ["not logged"], ["not logged"]]  # the fourth shows the baseline


def test_several_tasks_have_a_curve_each(write):
    scores = line([0, 2], {"score/RTE": 0.5, "score/CoLA": -0.1, "CoLA/mcc": -0.1}) + line([1, 4], {"score/RTE": 0.6})
    axes = draw(phases_of(write("a.json", line([0, 1], {"step_loss": 0.7}) + scores))).axes[2]
    assert axes.get_title(loc="left") == "Score of each task"
    curves = {curve.get_label(): list(curve.get_xydata().flat) for curve in axes.lines}
    assert curves == {"CoLA": [2, -0.1], "RTE": [2, 0.5, 4, 0.6]}


def test_the_command_writes_the_figure_and_prints_the_table(write, tmp_path, capsys):
    log = write("a.json", phase_log(1, [1, 2]) + line([0, 3], {"mlm_loss": "NaN", "nsp_loss": "Infinity"}))
    tuned = write("tuned.json", finetuning_log("ckpt_9.pt", F1=50.0))
    main(ReportConfig(logs=[log], finetuned=[tuned], output=str(tmp_path / "new" / "report.png")))
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["report.md", "report.png"]
    assert (tmp_path / "new" / "report.png").read_bytes().startswith(PNG)
    printed = capsys.readouterr().out
    assert printed == (tmp_path / "new" / "report.md").read_text(encoding="utf8")
    assert "phase 1" in printed
    assert "from ckpt_9.pt" in printed


def test_wrong_input_names_the_flag_and_the_file(write, tmp_path):
    output = str(tmp_path / "report.png")
    with pytest.raises(UsageError, match=r"--logs .*missing\.json: No such file"):
        main(ReportConfig(logs=[str(tmp_path / "missing.json")], output=output))
    with pytest.raises(UsageError, match=r"--logs .*empty\.json: no training steps"):
        main(ReportConfig(logs=[write("empty.json", line("PARAMETER", {"phase": 1}))], output=output))
    with pytest.raises(UsageError, match=r"--finetuned .*gone\.json: No such file"):
        logs = [write("a.json", phase_log(1, [1]))]
        main(ReportConfig(logs=logs, finetuned=[str(tmp_path / "gone.json")], output=output))
    with pytest.raises(UsageError, match=r"--output report\.doc: expected .*\.png"):
        main(ReportConfig(logs=[write("a.json", phase_log(1, [1]))], output="report.doc"))
    assert not (tmp_path / "report.png").exists()


def test_the_machine_has_its_rows(write):
    """The slowest rank of three reports, memory and utilisation of the end."""
    text = phase_log(1, [1, 2, 3])
    for step, rank, time in ((1, 3, 12.0), (2, 0, 11.0), (3, 3, 14.0)):
        text += line([0, step], {"slowest_rank": rank, "slowest_rank_time": time, "median_rank_time": 10.0})
    text += line([], {"training_flop_utilisation": 0.705, "peak_device_memory": 12.345, "peak_host_memory": 2.5})
    table = summarize(phases_of(write("a.json", text)))
    for row in (
        "| share of the measured ceiling | 70.5% |",
        "| peak memory of a device, GiB | 12.35 |",
        "| peak memory of a process on the host, GiB | 2.50 |",
        "| rank that was slowest most often | 3 |",
        "| slowest rank's own work in a step, ms | 12.0 |",
        "| median rank's own work in a step, ms | 10.0 |",
    ):
        assert row in table
