"""Why a trial ended, from what Tune's hooks see; with a real Tuner in test_lifecycle_tune.py."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from drl_ray_tracking import names
from drl_ray_tracking.tracking.lineage import configured_rate, donor_of, learns_at_another_rate
from drl_ray_tracking.trials.endings import stopped_by, trial_ending


@pytest.mark.parametrize(
    ("criteria", "result", "reason"),
    [
        ({}, {"a": 1, "done": False}, ""),
        ({}, {"a": 1, "done": True}, names.END_STOPPED),
        ({"a": 2}, {"a": 2, "done": True}, names.END_CRITERION),
        ({"a": 2}, {"a": 1.9, "done": True}, names.END_STOPPED),
        ({"n/b": 5}, {"n": {"b": 6}, "done": True}, names.END_CRITERION),
        ({"gone": 5}, {"a": 6, "done": True}, names.END_STOPPED),
        ({"a": 5}, {"a": float("nan"), "done": True}, names.END_STOPPED),
    ],
)
def test_what_a_last_result_tells(criteria: dict[str, Any], result: dict[str, Any], reason: str) -> None:
    assert stopped_by(SimpleNamespace(stopping_criterion=criteria), result) == reason


def test_what_a_trials_end_tells() -> None:
    assert trial_ending(SimpleNamespace(last_result={"done": True}), "") == names.END_COMPLETED
    assert trial_ending(SimpleNamespace(last_result={"done": False}), "") == names.END_SCHEDULER
    assert trial_ending(SimpleNamespace(last_result=None), "") == names.END_SCHEDULER
    assert trial_ending(SimpleNamespace(last_result={"done": True}), names.END_STOPPED) == names.END_STOPPED


def resumed(trial_id: str) -> Any:
    saved = SimpleNamespace(metrics={"trial_id": trial_id}, checkpoint=SimpleNamespace(path="/c/1"))
    return SimpleNamespace(trial_id="t1", latest_checkpoint_result=saved)


def test_a_donor_is_another_trial() -> None:
    assert donor_of(resumed("t2")) == ("t2", "/c/1")
    assert donor_of(resumed("t1")) == ("", "")
    assert donor_of(SimpleNamespace(trial_id="t1", latest_checkpoint_result=None)) == ("", "")


def learners(**rates: float) -> dict[str, Any]:
    return {"learners": {module: {"default_optimizer_learning_rate": rate} for module, rate in rates.items()}}


def test_the_learning_rate_in_effect_is_compared_with_the_configured_one() -> None:
    assert not learns_at_another_rate(learners(p0=1e-4), 1e-4)
    assert not learns_at_another_rate(learners(p0=9.999999747378752e-05), 1e-4), "float32 is no difference"
    assert learns_at_another_rate(learners(p0=1e-4, p1=3e-4), 1e-4)
    assert not learns_at_another_rate(learners(p0=3e-4), None)
    assert not learns_at_another_rate({"learners": {"__all_modules__": {"other": 1.0}}}, 1e-4)
    assert configured_rate({"lr": [[0, 1e-3], [1000, 1e-4]]}) is None
    assert configured_rate({"lr": 1e-3}) == 1e-3
    assert configured_rate({}) is None
