"""From a trial back to its configuration: the runners it really had, data beside the file that is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from drl_ray_tracking.promotion.rebuild import _given, narrowed
from drl_ray_tracking.promotion.reproduce import _LastValues, _repeats
from drl_ray_tracking.training.config import parse_config
from drl_ray_tracking.trials.metrics import MetricSelection

GIVEN: dict[str, Any] = {
    "experiment": "e",
    "data": {"source": "gym_anytrading:GOOGL"},
    "agents": [{"algorithm": "PPO"}],
    "stop": {"training_iteration": 1},
}


def test_a_trial_has_the_runners_it_was_recorded_with() -> None:
    sweep = parse_config({**GIVEN, "resources": {"env_runners": "auto", "max_failures": 7}}, "here")
    trial = {"seed": 3, "num_env_runners": 2, "num_envs_per_env_runner": 4, "evaluation_num_env_runners": 1}
    found = narrowed(sweep, trial, {})
    assert (found.resources.env_runners, found.resources.envs_per_runner, found.evaluation.runners) == (2, 4, 1)
    assert found.resources.max_failures == 7
    assert narrowed(sweep, {"seed": 3}, {}).resources.env_runners == "auto"


def test_relative_data_and_models_lie_beside_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "sweep"
    folder.mkdir()
    (folder / "prices.csv").touch()
    file = folder / "sweep.yaml"
    file.write_text(yaml.safe_dump({**GIVEN, "data": {"source": "prices.csv"}, "start_from": "model"}))
    monkeypatch.chdir(tmp_path)
    found = _given(Path("sweep/sweep.yaml"))
    assert (found.data.source, found.start_from) == (str(folder / "prices.csv"), str(folder / "model"))


@pytest.mark.parametrize("name", ["eval/trading/sharpe", "progress/env_steps", "num_env_steps_sampled_lifetime"])
def test_what_training_determines_is_compared(name: str) -> None:
    assert _repeats(name)


@pytest.mark.parametrize(
    "name",
    ["test/trading/sharpe", "rules/passed", "perf/iteration_time_s", "time_total_s", "timers/training_iteration",
     "env_runners/sample_timer", "timestamp", "env_runners/num_env_steps_sampled_lifetime_throughput"],
)  # fmt: skip
def test_what_was_done_afterwards_and_what_the_clock_says_is_not(name: str) -> None:
    assert not _repeats(name)


def test_only_what_the_sweep_tracked_is_compared() -> None:
    result = {
        "num_env_steps_sampled_lifetime": 5,
        "env_runners": {"episode": {"return_mean": 1.0, "return_max": 2.0}},
    }
    last = _LastValues(MetricSelection("vocabulary", ("*return_mean",), ()))
    last.on_trial_result(1, [], None, result)
    assert last.values == {"train/episode/return_mean": 1.0}
