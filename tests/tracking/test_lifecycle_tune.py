"""How trials end and what they go on from, through a real Tuner on a real Ray into a real store."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from drl_ray_tracking import MLflowTrackingCallback, names
from drl_ray_tracking.tracking.import_tune import import_tune
from tests.tracking.test_callback_tune import runs_of

pytestmark = [pytest.mark.ray, pytest.mark.mlflow, pytest.mark.usefixtures("ray_session")]

# Trials that Tune ends without a word keep the files of its own loggers open until they are collected.
RAY_LEAVES_FILES_OPEN = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def counting() -> Any:
    """A class trainable whose score grows with `lr` per step; it can be saved, restored and reset."""
    from ray import tune

    class Counting(tune.Trainable):
        def setup(self, config: dict[str, Any]) -> None:
            self.score = 0.0

        def step(self) -> dict[str, Any]:
            self.score += self.config["lr"]
            return {"score": self.score}

        def save_checkpoint(self, checkpoint_dir: str) -> None:
            (Path(checkpoint_dir) / "score").write_text(str(self.score))

        def load_checkpoint(self, checkpoint: Any) -> None:
            self.score = float((Path(checkpoint) / "score").read_text())

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.config = new_config
            self.score = 0.0
            return True

    return Counting


def five(config: dict[str, Any]) -> None:
    """Five results, then it returns."""
    from ray import tune

    for step in range(1, 6):
        tune.report({"score": config["lr"] * step})


def saving(config: dict[str, Any]) -> None:
    """Five results, a checkpoint with the second and the fourth; then it fails, or returns."""
    import tempfile

    from ray import tune

    for step in range(1, 6):
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = tune.Checkpoint.from_directory(folder) if step in (2, 4) else None
            tune.report({"score": float(step)}, checkpoint=checkpoint)
    if config["fails"]:
        raise ValueError("boom")


def fit(
    tmp_path: Path,
    trainable: Any,
    callback: Any,
    space: dict[str, Any],
    tune_config: Any = None,
    callbacks: tuple[Any, ...] = (),
    **run: Any,
) -> Any:
    from ray import tune

    run_config = tune.RunConfig(
        name="exp", storage_path=str(tmp_path / "results"), callbacks=[callback, *callbacks], verbose=0, **run
    )
    return tune.Tuner(trainable, param_space=space, tune_config=tune_config, run_config=run_config).fit()


def trials_of(uri: str) -> dict[str, Any]:
    return {key: run for key, run in runs_of(uri, "e").items() if key}


def history(uri: str, run: Any, key: str) -> list[tuple[int, float]]:
    from mlflow.tracking import MlflowClient

    return [(point.step, point.value) for point in MlflowClient(uri).get_metric_history(run.info.run_id, key)]


def end_of(run: Any) -> tuple[str, str]:
    return run.info.status, run.data.tags[names.TAG_END_REASON]


def by_lr(runs: Mapping[str, Any]) -> dict[str, Any]:
    return {run.data.params["lr"]: run for run in runs.values()}


def pbt(scheduler: str) -> Any:
    from ray import tune
    from ray.tune.schedulers import PopulationBasedTraining
    from ray.tune.schedulers.pb2 import PB2

    common: dict[str, Any] = {
        "time_attr": "training_iteration", "metric": "score", "mode": "max", "perturbation_interval": 2,
        "quantile_fraction": 0.5, "synch": True,
    }  # fmt: skip
    if scheduler == "PB2":
        return PB2(hyperparam_bounds={"lr": [0.1, 2.0]}, **common)
    mutations = {"lr": tune.uniform(0.2, 0.8)}
    return PopulationBasedTraining(hyperparam_mutations=mutations, resample_probability=1.0, **common)


@pytest.mark.filterwarnings("ignore")  # PB2 warns of its own fit in many ways
@pytest.mark.parametrize("scheduler", ["PBT", "PB2"])
def test_perturbed_hyperparameters_keep_their_history_and_their_donor(
    tmp_path: Path, sqlite_store: Callable[[], str], scheduler: str
) -> None:
    from ray import tune

    uri = sqlite_store()
    callback = MLflowTrackingCallback(uri, experiment_name="e")
    config = tune.TuneConfig(scheduler=pbt(scheduler), reuse_actors=True)
    space = {"lr": tune.grid_search([0.1, 1.0]), "gamma": 0.9}
    assert not fit(tmp_path, counting(), callback, space, config, stop={"training_iteration": 5}).errors
    assert callback.delivered
    trials = trials_of(uri)
    low, high = by_lr(trials)["0.1"], by_lr(trials)["1.0"]
    donor = high.data.tags[names.TAG_TRIAL_ID]
    lineage = json.loads(low.data.tags[names.TAG_LINEAGE])
    assert [entry[1:] for entry in lineage] == [[2, donor, ["lr"]], [4, donor, ["lr"]]]
    changes = history(uri, low, "hparam/lr")
    assert changes[0] == (0, 0.1), "the chart begins with the value the trial began with"
    assert [step for step, _ in changes[1:]] == [2, 4]
    assert float(low.data.tags["hparam.lr"]) == changes[-1][1]
    assert low.data.params == {"lr": "0.1", "gamma": "0.9"}, "parameters are written once"
    assert names.TAG_LINEAGE not in high.data.tags
    assert not [key for key in high.data.metrics if key.startswith("hparam/")]
    assert {end_of(run) for run in trials.values()} == {("FINISHED", names.END_CRITERION)}


def test_each_trial_says_why_it_ended(tmp_path: Path, sqlite_store: Callable[[], str]) -> None:
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler

    uri = sqlite_store()
    asha = ASHAScheduler(metric="score", mode="max", max_t=100, grace_period=2, reduction_factor=2)
    config = tune.TuneConfig(scheduler=asha, max_concurrent_trials=1)
    space = {"lr": tune.grid_search([1.0, 10.0, 0.1])}
    callback = MLflowTrackingCallback(uri, experiment_name="e")
    assert not fit(tmp_path, five, callback, space, config, stop={"score": 50.0}).errors
    assert {lr: end_of(run) for lr, run in by_lr(trials_of(uri)).items()} == {
        "1.0": ("FINISHED", names.END_COMPLETED),
        "10.0": ("FINISHED", names.END_CRITERION),
        "0.1": ("FINISHED", names.END_STOPPED),
    }
    assert end_of(runs_of(uri, "e")[""]) == ("FINISHED", names.END_COMPLETED)


def test_hyperband_removes_paused_trials(tmp_path: Path, sqlite_store: Callable[[], str]) -> None:
    from ray import tune
    from ray.tune.schedulers import HyperBandScheduler

    uri = sqlite_store()
    scheduler = HyperBandScheduler(metric="score", mode="max", max_t=4, reduction_factor=2)
    callback = MLflowTrackingCallback(uri, experiment_name="e")
    space = {"lr": tune.grid_search([0.1, 0.2, 0.3, 0.4])}
    assert not fit(tmp_path, counting(), callback, space, tune.TuneConfig(scheduler=scheduler)).errors
    ends = [end_of(run) for run in trials_of(uri).values()]
    assert {status for status, _ in ends} == {"FINISHED"}
    assert {reason for _, reason in ends} == {names.END_SCHEDULER, names.END_STOPPED}


@RAY_LEAVES_FILES_OPEN
def test_an_interrupted_sweep_is_killed_and_says_so(tmp_path: Path, sqlite_store: Callable[[], str]) -> None:
    from ray import tune

    class Interrupt(tune.Callback):
        def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any) -> None:
            if result["training_iteration"] == 2:
                os.kill(os.getpid(), signal.SIGINT)

    uri = sqlite_store()
    callback = MLflowTrackingCallback(uri, experiment_name="e")
    fit(tmp_path, counting(), callback, {"lr": 1.0}, callbacks=(Interrupt(),), stop={"training_iteration": 100_000})
    assert callback.delivered
    assert {end_of(run) for run in runs_of(uri, "e").values()} == {("KILLED", names.END_INTERRUPTED)}
    (run,) = trials_of(uri).values()
    assert len(history(uri, run, "score")) >= 2


@RAY_LEAVES_FILES_OPEN
def test_a_time_budget_ends_the_sweep_not_the_trial(tmp_path: Path, sqlite_store: Callable[[], str]) -> None:
    from ray.tune.stopper import TimeoutStopper

    class OnceTrained(TimeoutStopper):
        """A time budget that does not begin before the first result: a loaded machine starts trials late."""

        trained = False

        def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
            self.trained = True
            return False

        def stop_all(self) -> bool:
            return self.trained and super().stop_all()

    uri = sqlite_store()
    callback = MLflowTrackingCallback(uri, experiment_name="e")
    fit(tmp_path, counting(), callback, {"lr": 1.0}, stop=OnceTrained(2))
    (run,) = trials_of(uri).values()
    assert end_of(run)[0] == "FINISHED"
    assert end_of(run)[1] in (names.END_SWEEP_STOPPED, names.END_STOPPED)


def test_only_what_a_checkpoint_covers_is_published(tmp_path: Path, sqlite_store: Callable[[], str]) -> None:
    from ray import tune

    uri = sqlite_store()
    callback = MLflowTrackingCallback(uri, experiment_name="e", publish="checkpointed")
    results = fit(tmp_path, saving, callback, {"fails": tune.grid_search([True, False])})
    assert callback.delivered
    assert len(results.errors) == 1
    trials = {run.data.params["fails"]: run for run in trials_of(uri).values()}
    assert [step for step, _ in history(uri, trials["True"], "score")] == [1, 2, 3, 4]
    assert [step for step, _ in history(uri, trials["False"], "score")] == [1, 2, 3, 4, 5]
    assert end_of(trials["True"]) == ("FAILED", names.END_ERROR)
    assert runs_of(uri, "e")[""].data.tags[names.TAG_PUBLISH] == "checkpointed"


def test_an_import_of_what_was_tracked_adds_nothing_and_of_what_was_not_everything(
    tmp_path: Path, sqlite_store: Callable[[], str]
) -> None:
    from ray import tune

    uri, other = sqlite_store(), sqlite_store()
    callback = MLflowTrackingCallback(uri, experiment_name="e")
    fit(tmp_path, five, callback, {"lr": tune.grid_search([1.0, 2.0])})
    before = {key: run.to_dictionary() for key, run in runs_of(uri, "e").items()}
    folder = tmp_path / "results" / "exp"
    outcome = import_tune(folder, uri, "e", now_ms=lambda: 10**15)
    assert (outcome.sweep_id, outcome.runs, outcome.points) == (callback.sweep_id, 0, 0)
    after = {key: run.to_dictionary() for key, run in runs_of(uri, "e").items()}
    assert {key: run["data"]["params"] for key, run in after.items()} == {
        key: run["data"]["params"] for key, run in before.items()
    }
    (folder / names.IDENTITY_FILE).unlink()
    assert import_tune(folder, other, "e", now_ms=lambda: 10**15).runs == 3
    imported = by_lr(trials_of(other))
    for lr, run in by_lr(trials_of(uri)).items():
        assert history(other, imported[lr], "score") == history(uri, run, "score")
        assert imported[lr].data.params == run.data.params
        for tag in (names.TAG_CONFIG_HASH, names.TAG_TRIAL_ID, names.TAG_ALGORITHM):
            assert imported[lr].data.tags[tag] == run.data.tags[tag]
        assert imported[lr].info.run_name == run.info.run_name
