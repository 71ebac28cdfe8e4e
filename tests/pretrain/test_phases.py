"""Where a run starts, for every kind of checkpoint it may find."""

import pytest

from bert.errors import UsageError
from bert.pretrain.phases import PhaseConfig, Start, plan_start

PHASE_1 = PhaseConfig()
PHASE_2 = PhaseConfig(phase2=True)


def checkpoint(phase: int, step: int, max_steps: int, offset: int = 0) -> dict:
    training = {"step": step, "iteration": step, "data": {}}
    return {"phase": phase, "offset": offset, "max_steps": max_steps, "training": training}


def start(found: dict | None, config: PhaseConfig) -> tuple[Start, list[str]]:
    notices: list[str] = []
    return plan_start(found, config, notices.append), notices


def test_nothing_found_is_a_fresh_start():
    assert start(None, PHASE_1) == (Start(phase=1), [])
    fresh, notices = start(None, PHASE_2)
    assert fresh == Start(phase=2) and "no checkpoint of phase 1" in notices[0]


def test_phase_1_continues():
    found = checkpoint(1, step=40, max_steps=100)
    assert start(found, PHASE_1)[0] == Start(1, 0, found["training"], keep_moments=True, keep_scale=True)


def test_phase_2_begins_with_moments_at_step_0_whatever_the_length_of_phase_1():
    assert start(checkpoint(1, step=300, max_steps=300), PHASE_2)[0] == Start(2, offset=300, keep_moments=True)


def test_a_restarted_phase_2_continues_without_another_flag():
    found = checkpoint(2, step=7, max_steps=20, offset=300)
    assert start(found, PHASE_2)[0] == Start(2, 300, found["training"], keep_moments=True, keep_scale=True)


def test_an_unfinished_phase_1_is_refused_unless_its_step_is_named():
    found = checkpoint(1, step=40, max_steps=100)
    with pytest.raises(UsageError, match="phase 1 stopped at step 40 of 100.*--phase1_end_step 40"):
        start(found, PHASE_2)
    accepted = PhaseConfig(phase2=True, phase1_end_step=40)
    assert start(found, accepted)[0] == Start(2, offset=40, keep_moments=True)


def test_a_phase_2_checkpoint_is_not_continued_as_phase_1():
    with pytest.raises(UsageError, match="add --phase2"):
        start(checkpoint(2, step=7, max_steps=20), PHASE_1)


def test_a_foreign_checkpoint_gives_weights_only_and_says_so():
    begun, notices = start({"model": {}}, PhaseConfig(phase2=True, phase1_end_step=7038))
    assert begun == Start(phase=2, offset=7038) and "its moments are not" in notices[0]
    begun, notices = start({"model": {}, "optimizer": {"state": {}}}, PHASE_1)
    assert begun == Start(phase=1) and "its moments are not" in notices[0]


def test_a_foreign_checkpoint_with_moments_is_the_end_of_phase_1():
    begun, notices = start({"model": {}, "optimizer": {"state": {}}}, PHASE_2)
    assert begun == Start(phase=2, offset=7038, keep_moments=True) and "taken for the end of phase 1" in notices[0]
