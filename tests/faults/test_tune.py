"""Faults inside a sweep of Tune: F10, F12 and F13."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import gymnasium
import pytest
from ray import tune

from drl_ray_tracking import names
from tests.faults.conftest import wait_until_delivered
from tests.faults.delivered import Store, assert_delivered
from tests.faults.given import Given, RecordingCallback, read_given
from tests.servers import Server

pytestmark = [pytest.mark.faults, pytest.mark.ray, pytest.mark.mlflow, pytest.mark.usefixtures("ray_session")]


def fit(
    tmp_path: Path, server: Server, store: Store, trainable: Any, *callbacks: tune.Callback, **settings: Any
) -> tuple[Any, Given]:
    """Runs a sweep; returns Tune's results and what the hooks were given."""
    record = tmp_path / "given.jsonl"
    tracking = RecordingCallback(record, server.address, experiment_name=store.experiment, names="raw")
    stop = settings.pop("stop", None)
    run_config = tune.RunConfig(
        name="exp", storage_path=str(tmp_path / "results"), callbacks=[tracking, *callbacks], stop=stop, verbose=0
    )
    results = tune.Tuner(trainable, run_config=run_config, **settings).fit()
    wait_until_delivered()
    given = read_given(record)
    assert given.delivered
    return results, given


class ObservedCartPole(gymnasium.Wrapper):  # type: ignore[type-arg]
    """CartPole that leaves the id of its process in a file."""

    def __init__(self, config: Any) -> None:
        super().__init__(gymnasium.make("CartPole-v1"))
        if config.worker_index > 0:
            with Path(config["pids"]).open("a") as file:
                file.write(f"{os.getpid()}\n")


class KillEnvRunner(tune.Callback):
    """Kills the only env runner after the first result."""

    def __init__(self, pids: Path) -> None:
        self.pids = pids

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        if result["training_iteration"] == 1:
            os.kill(int(self.pids.read_text().splitlines()[-1]), signal.SIGKILL)


@pytest.mark.filterwarnings("ignore:.*WARN.*:UserWarning")  # gymnasium, of CartPole's precision
def test_f10_an_env_runner_that_is_killed(tmp_path: Path, server: Server, store: Store) -> None:
    from ray.rllib.algorithms.ppo import PPOConfig

    pids = tmp_path / "pids"
    config = (
        PPOConfig()  # type: ignore[no-untyped-call]
        .environment(ObservedCartPole, env_config={"pids": str(pids)})
        .env_runners(num_env_runners=1, rollout_fragment_length=64)
        .fault_tolerance(restart_failed_env_runners=True)
        .training(train_batch_size_per_learner=128, minibatch_size=64, num_epochs=1)
    )

    def replaced(trial_id: str, result: dict[str, Any]) -> bool:
        back = len(set(pids.read_text().split())) == 2
        return bool((back and result["training_iteration"] >= 4) or result["time_total_s"] > 60)

    results, given = fit(tmp_path, server, store, "PPO", KillEnvRunner(pids), param_space=config, stop=replaced)
    assert not results.errors
    assert len(set(pids.read_text().split())) == 2, "the env runner was not replaced"
    (trial,) = given.trials.values()
    assert trial.results >= 4
    assert_delivered(given, store)


def fail_early(config: dict[str, Any]) -> None:
    if config["fails"]:
        raise ValueError("boom before the first result")
    for step in range(1, 4):
        tune.report({"loss": 1.0 / step})


def test_f12_a_trial_that_fails_before_its_first_result(tmp_path: Path, server: Server, store: Store) -> None:
    space = {"fails": tune.grid_search([True, False])}
    results, given = fit(tmp_path, server, store, fail_early, param_space=space)
    assert len(results.errors) == 1
    assert sorted(trial.status for trial in given.trials.values()) == ["FAILED", "FINISHED"]
    assert sorted(trial.results for trial in given.trials.values()) == [0, 3]
    assert_delivered(given, store)
    (failed,) = [trial_id for trial_id, trial in given.trials.items() if trial.status == "FAILED"]
    run = store.run_of(failed)
    assert "boom before the first result" in run.data.tags[names.TAG_ERROR]
    files = {file.path for file in store.client.list_artifacts(run.info.run_id)}
    assert {names.ERROR_ARTIFACT, names.CONFIG_ARTIFACT} <= files


class Climber(tune.Trainable):
    """Climbs by its rate at every step; the better trial is known from the first step on."""

    def setup(self, config: dict[str, Any]) -> None:
        self.height = 0.0

    def step(self) -> dict[str, float]:
        self.height += self.config["rate"]
        return {"height": self.height}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        (Path(checkpoint_dir) / "state.json").write_text(json.dumps(self.height))

    def load_checkpoint(self, checkpoint: Any) -> None:
        self.height = json.loads((Path(checkpoint) / "state.json").read_text())

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        return True


def population_based(kind: str) -> Any:
    common: dict[str, Any] = {
        "time_attr": "training_iteration",
        "metric": "height",
        "mode": "max",
        "perturbation_interval": 2,
        "quantile_fraction": 0.5,
    }
    if kind == "PBT":
        from ray.tune.schedulers import PopulationBasedTraining

        return PopulationBasedTraining(
            **common, hyperparam_mutations={"rate": tune.uniform(0.0, 1.0)}, resample_probability=1.0, synch=True
        )
    from ray.tune.schedulers.pb2 import PB2

    return PB2(**common, hyperparam_bounds={"rate": [0.0, 1.0]}, synch=True)


@pytest.mark.filterwarnings("ignore")  # PB2 warns of its own fit in many ways
@pytest.mark.parametrize("kind", ["PBT", "PB2"])
def test_f13_perturbed_hyperparameters(tmp_path: Path, server: Server, store: Store, kind: str) -> None:
    results, given = fit(
        tmp_path,
        server,
        store,
        Climber,
        param_space={"rate": tune.grid_search([0.1, 0.9])},
        tune_config=tune.TuneConfig(scheduler=population_based(kind), reuse_actors=True),
        stop={"training_iteration": 8},
    )
    assert not results.errors
    assert_delivered(given, store)
    runs = {trial_id: store.run_of(trial_id) for trial_id in given.trials}
    assert {run.data.params["rate"] for run in runs.values()} == {"0.1", "0.9"}, "the first values stay"
    perturbed = [run for run in runs.values() if "hparam/rate" in run.data.metrics]
    assert perturbed, "nothing was perturbed"
    for run in perturbed:
        history = store.client.get_metric_history(run.info.run_id, "hparam/rate")
        assert float(run.data.tags["hparam.rate"]) == history[-1].value
