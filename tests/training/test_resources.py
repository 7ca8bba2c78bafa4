"""What a trial asks for is fitted to the machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.rllib.algorithms.ppo import PPOConfig

from drl_ray_tracking.training.autoscaling import Cores, cores_of
from drl_ray_tracking.training.config import ResourceConfig
from drl_ray_tracking.training.resources import fit


def settings(runners: int = 0, evaluators: int = 0) -> Any:
    return PPOConfig().env_runners(num_env_runners=runners).evaluation(evaluation_num_env_runners=evaluators)


def has(cpus: float) -> Cores:
    return Cores(cpus, 0.0, cpus)


def test_what_fits_stays_and_nothing_is_said() -> None:
    one = settings(2, 1)
    assert fit([one], ResourceConfig(env_runners=2), trials=4, cores=has(4)) == []
    assert (one.num_env_runners, one.evaluation_num_env_runners) == (2, 1)


def test_more_than_the_machine_has_is_cut_and_said_once() -> None:
    both = [settings(8, 2), settings(8, 2)]
    (said,) = fit(both, ResourceConfig(env_runners=8), trials=4, cores=has(4))
    assert "PPO: 8 env runners and 2 for evaluation do not fit into 4 cores; 3 and 0 are used" in said
    assert all((one.num_env_runners, one.evaluation_num_env_runners) == (3, 0) for one in both)


@pytest.mark.parametrize(("trials", "cpus", "runners"), [(1, 8, 7), (4, 8, 1), (100, 8, 0), (2, 2, 0), (3, 16, 4)])
def test_auto_gives_each_trial_that_runs_at_once_its_share(trials: int, cpus: float, runners: int) -> None:
    one = settings()
    assert fit([one], ResourceConfig(env_runners="auto"), trials=trials, cores=has(cpus)) == []
    assert one.num_env_runners == runners


def test_auto_knows_how_many_may_run_at_once() -> None:
    one = settings()
    fit([one], ResourceConfig(env_runners="auto", max_concurrent=2), trials=100, cores=has(8))
    assert one.num_env_runners == 3


def test_nodes_that_an_autoscaler_brings_when_asked_are_not_cut_away(tmp_path: Path) -> None:
    worker = {"resources": {"CPU": 8}, "max_workers": 3}
    declared = {"max_workers": 2, "head_node_type": "head", "available_node_types": {
        "head": {"resources": {"CPU": 2}, "max_workers": 0}, "worker": worker}}  # fmt: skip
    file = tmp_path / "ray_bootstrap_config.yaml"
    file.write_text(yaml.safe_dump(declared))
    assert cores_of(2.0, file) == Cores(2.0, 8.0, 18.0)
    asked = settings(6)
    assert fit([asked], ResourceConfig(env_runners=6), trials=1, cores=cores_of(2.0, file)) == []
    assert asked.num_env_runners == 6
    auto = settings()
    fit([auto], ResourceConfig(env_runners="auto"), trials=2, cores=cores_of(2.0, file))
    assert auto.num_env_runners == 3, "half a node of 8"
    asked = settings(40)
    assert (
        "do not fit into 18 cores" in fit([asked], ResourceConfig(env_runners=40), trials=1, cores=cores_of(2, file))[0]
    )


def test_where_the_autoscalers_limit_is_not_known_nothing_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBERAY_GEN_RAY_START_CMD", "ray start --head  --no-monitor  --num-cpus=2 ")
    asked = settings(40)
    assert fit([asked], ResourceConfig(env_runners=40), trials=1, cores=cores_of(2.0, tmp_path / "none")) == []
    assert asked.num_env_runners == 40


def test_a_cluster_without_an_autoscaler_is_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERAY_GEN_RAY_START_CMD", "ray start --head --num-cpus=2")
    assert cores_of(4.0, tmp_path / "none") == has(4.0)
    (tmp_path / "broken").write_text("- a list")
    assert cores_of(4.0, tmp_path / "broken") == has(4.0)
