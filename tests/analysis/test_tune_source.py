"""Tune results without MLflow: refusals, attempts, gaps; whole sweeps in test_main_job.py and below through Tune."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from drl_ray_tracking import MLflowTrackingCallback, RunSet, compare, load_runs, names
from drl_ray_tracking.analysis.sameness import differences
from drl_ray_tracking.errors import ConfigurationError, DataError
from drl_ray_tracking.tracking.import_tune import import_tune
from tests.tracking.test_import_tune import experiment


def test_a_directory_of_the_past(tmp_path: Path) -> None:
    runs = RunSet.from_tune(experiment(tmp_path))
    assert list(runs.runs.index) == ["ab_0", "ab_1", "ab_2"]
    assert runs.runs["status"].to_list() == ["FINISHED", "KILLED", "FAILED"]
    assert list(runs.parents["name"]) == ["old"] and runs.test_evaluations is None
    assert runs.run_history("loss", "ab_1").to_dict() == pytest.approx({1: 1, 2: 1 / 2, 3: 1 / 3, 4: 1 / 4, 5: 1 / 5})
    assert runs.run_history("hparam/lr", "ab_1").to_dict() == {0: 0.1, 2: 0.2}
    assert runs.handovers()[["run_id", "step", "donor", "changed"]].to_numpy().tolist() == [["ab_1", 2, "", "lr"]]
    assert compare(runs, metric="loss", mode="min").best_run.run_id == "ab_0"
    with pytest.raises(DataError, match=r"trial ab_0 kept no evaluation series .files drl_series/\*\.parquet"):
        runs.series("ab_0")


def test_lost_iterations_are_listed(tmp_path: Path) -> None:
    folder = experiment(tmp_path)
    results = folder / "train_ab_0_x" / "result.json"
    lines = results.read_text().splitlines()
    results.write_text("\n".join([lines[0], lines[2]]) + "\n")
    (item,) = RunSet.from_tune(folder).unreadable
    assert (item.run_id, item.reason) == ("ab_0", "Tune's files lack the results of 1 of its iterations")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (3, "must be a ResultGrid, an ExperimentAnalysis, or its directory as a path or URI, but got int"),
        ("nowhere", "there is no directory"),
        (".", "is no Tune experiment"),
        ("nope://x", "cannot be opened"),
    ],
)
def test_what_is_no_result_is_refused(source: Any, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=words):
        RunSet.from_tune(source)


def test_it_is_read_without_ray_and_without_mlflow(tmp_path: Path) -> None:
    code = (
        "import sys; from drl_ray_tracking import RunSet, compare\n"
        f"compare(RunSet.from_tune({str(experiment(tmp_path))!r}), metric='loss', mode='min')\n"
        "sys.exit(','.join(sorted({'mlflow', 'ray', 'torch'} & set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_differences_are_named(tmp_path: Path) -> None:
    one, other = (RunSet.from_tune(experiment(tmp_path / name)) for name in ("one", "other"))
    assert one.equals(other)
    other.runs.loc["ab_0", "status"] = "FAILED"
    other.histories.loc[0, "value"] += 1.0
    found = differences(one, other)
    assert found[0] == "status of trial ab_0: 'FINISHED', 'FAILED'"
    assert found[1].startswith("the points of ") and found[1].endswith(" of trial ab_0 differ")
    assert not one.equals(other)


def reporting(config: dict[str, Any]) -> None:
    """Three results."""
    from ray import tune

    for step in range(1, 4):
        tune.report({"score": config["lr"] * step})


@pytest.mark.ray
@pytest.mark.mlflow
@pytest.mark.usefixtures("ray_session")
def test_tags_of_a_trials_own_are_the_same_in_either_reading(tmp_path: Path, sqlite_store: Callable[[], str]) -> None:
    from ray import tune

    uri, imported = sqlite_store(), sqlite_store()
    tracking = MLflowTrackingCallback(
        uri,
        experiment_name="e",
        tags={names.TAG_TIMEFRAME: "1d"},
        trial_tags=lambda trial: {names.TAG_SYMBOLS: "GOOGL" if trial.config["lr"] < 0.3 else "EURUSD"},
    )
    results = tune.Tuner(
        reporting,
        param_space={"lr": tune.grid_search([0.1, 0.4])},
        run_config=tune.RunConfig(name="exp", storage_path=str(tmp_path), callbacks=[tracking], verbose=0),
    ).fit()
    assert tracking.delivered
    stored, read = load_runs(uri, "e", metrics=["score"]), RunSet.from_tune(results)
    assert dict(zip(read.runs["param.lr"], read.runs["symbols"], strict=True)) == {"0.1": "GOOGL", "0.4": "EURUSD"}
    assert set(read.runs["timeframe"]) == {"1d"}
    assert differences(stored, read) == []
    import_tune(tmp_path / "exp", imported, "e", now_ms=lambda: 10**15)
    assert differences(load_runs(imported, "e", metrics=["score"]), read) == []


def exploited(config: dict[str, Any]) -> None:
    """Thirty results with checkpoints; goes on from the checkpoint it is given."""
    import json
    import tempfile
    from pathlib import Path

    from ray import tune

    start = 0
    checkpoint = tune.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            start = json.loads((Path(folder) / "state.json").read_text())
    for step in range(start + 1, 31):
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "state.json").write_text(json.dumps(step))
            tune.report({"score": config["lr"] * step}, checkpoint=tune.Checkpoint.from_directory(folder))


@pytest.mark.ray
@pytest.mark.mlflow
@pytest.mark.usefixtures("ray_session")
@pytest.mark.filterwarnings("ignore:Consider boosting PBT performance")
def test_a_population_based_sweep_has_its_lineage_in_either_reading(
    tmp_path: Path, sqlite_store: Callable[[], str]
) -> None:
    from ray import tune
    from ray.tune.schedulers import PopulationBasedTraining

    uri = sqlite_store()
    tracking = MLflowTrackingCallback(uri, experiment_name="e")
    scheduler = PopulationBasedTraining(
        time_attr="training_iteration", metric="score", mode="max", perturbation_interval=5,
        hyperparam_mutations={"lr": [0.1, 0.4]}, quantile_fraction=0.5, resample_probability=0.0, synch=True,
    )  # fmt: skip
    results = tune.Tuner(
        exploited,
        param_space={"lr": tune.grid_search([0.1, 0.4])},
        tune_config=tune.TuneConfig(scheduler=scheduler),
        run_config=tune.RunConfig(name="exp", storage_path=str(tmp_path), callbacks=[tracking], verbose=0),
    ).fit()
    assert not results.errors and tracking.delivered
    stored, read = load_runs(uri, "e", metrics=["score"]), RunSet.from_tune(results)
    trials = stored.runs["trial_id"].to_dict()
    donors = [
        {(str(trials.get(row["run_id"], row["run_id"])), str(trials.get(row["donor"], row["donor"])))
         for row in runs.handovers().to_dict("records") if row["donor"]}
        for runs in (stored, read)
    ]  # fmt: skip
    # Tune may end before it has written a paused trial's last results: its files then know less, and say so.
    assert donors[1] and donors[1] <= donors[0]
    lost = {one.run_id for one in read.unreadable}
    for run_id, trial in trials.items():
        known, all_of_it = read.run_history("score", str(trial)), stored.run_history("score", str(run_id))
        assert known.to_dict() == all_of_it.reindex(known.index).to_dict()
        assert len(known) == len(all_of_it) >= 2 or trial in lost
        if trial not in lost:
            assert stored.runs["config_hash"][run_id] == read.runs["config_hash"][trial]
