"""The whole street once: a configured sweep on real market data, tracked, read back, compared, published."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from drl_ray_tracking import RunSet, compare, load_runs, names
from drl_ray_tracking.analysis.sameness import differences
from drl_ray_tracking.analysis.verdict import judged
from tests.waiting import wait_until

pytestmark = [pytest.mark.ray, pytest.mark.mlflow]
DEMO = Path(__file__).parents[1] / "configs" / "demo.yaml"


@dataclass(frozen=True)
class Trained:
    """A store with one small sweep in it, and what the command printed."""

    store: str
    folder: Path
    output: str
    runs: list[Run]

    @property
    def trials(self) -> list[Run]:
        return [run for run in self.runs if run.data.tags[names.TAG_ROLE] == names.ROLE_TRIAL]

    @property
    def parent(self) -> Run:
        (parent,) = [run for run in self.runs if run.data.tags[names.TAG_ROLE] == names.ROLE_SWEEP]
        return parent


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The demo's own configuration with fewer seeds and iterations, through the real command."""
    folder = tmp_path_factory.mktemp("job")
    given = yaml.safe_load(DEMO.read_text())
    given.update(seeds=[1, 2, 3], search={}, stop={"training_iteration": 3}, storage=str(folder / "results"))
    given["agents"][0]["training"].update(train_batch_size=500, num_epochs=2)
    config = folder / "small.yaml"
    config.write_text(yaml.safe_dump(given))
    store = f"sqlite:///{folder}/mlflow.db"
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": store,
        "DRL_TRACK_HOME": str(folder / "home"),
        "COLUMNS": "160",
        "RAY_ADDRESS": "local",  # a Ray of its own, whatever else runs on this machine
    }
    done = subprocess.run(
        [sys.executable, "-m", "drl_ray_tracking.cli", "train", str(config), "--report", str(folder / "report")],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("demo")
    assert experiment is not None
    return Trained(store, folder, done.stdout, client.search_runs([experiment.experiment_id]))


def test_one_parent_run_and_its_trials_nested_and_finished(trained: Trained) -> None:
    assert len(trained.trials) == 3
    assert {run.info.status for run in trained.runs} == {"FINISHED"}
    assert {run.data.tags["mlflow.parentRunId"] for run in trained.trials} == {trained.parent.info.run_id}
    left = trained.folder / "home" / "journals"
    wait_until(lambda: not list(left.iterdir()), timeout_s=120, what="the courier has drawn and its journal is gone")


def test_names_tags_and_parameters_say_which_trial_it_is(trained: Trained) -> None:
    shared = {run.data.tags[names.TAG_CONFIG_HASH] for run in trained.trials}
    assert len(shared) == 1, "seeds share a configuration hash"
    (digest,) = shared
    assert {run.info.run_name for run in trained.trials} == {f"ppo-GOOGL-1d-s{seed}-{digest[:6]}" for seed in (1, 2, 3)}
    run = trained.trials[0]
    assert run.data.params["train_batch_size"] == "500"
    assert run.data.params["env_config/fee"] == "0.0005"
    assert len(run.data.params) < 40
    assert run.data.tags[names.TAG_WINDOW_ID]
    assert trained.parent.data.tags["mlflow.user"]
    assert trained.parent.data.tags[names.TAG_RAY_VERSION]


def test_metrics_are_grouped_and_tens_not_hundreds(trained: Trained) -> None:
    for run in trained.trials:
        groups = {key.split("/")[0] for key in run.data.metrics}
        assert {"train", "eval", "learner", "progress", "perf"} <= groups
        assert "config" not in groups
        assert len(run.data.metrics) < 100


def test_only_fresh_evaluations_are_published_at_their_own_steps(trained: Trained) -> None:
    client = MlflowClient(trained.store)
    for run in trained.trials:
        history = client.get_metric_history(run.info.run_id, "eval/episode/return_mean")
        assert [point.step for point in history] == [1000], "3 iterations of 500 steps, an evaluation every second"
        iterations = client.get_metric_history(run.info.run_id, "progress/iteration")
        assert [point.step for point in iterations] == [500, 1000, 1500]


def test_the_sharpe_ratio_is_that_of_the_evaluation_equity_curves(trained: Trained) -> None:
    runs = load_runs(trained.store, "demo")
    assert len(runs.runs) == 3
    for run in trained.trials:
        bars = runs.series(run.info.run_id)
        last = bars[bars["iteration"] == bars["iteration"].max()]
        returns = np.concatenate(
            [np.diff(episode["equity"]) / episode["equity"].to_numpy()[:-1] for _, episode in last.groupby("episode")]
        )
        expected = returns.mean() / returns.std(ddof=1) * np.sqrt(252)
        assert run.data.metrics["eval/trading/sharpe"] == pytest.approx(expected, abs=1e-9)
        assert run.data.metrics["eval/trading/bars"] == len(returns)


def test_the_full_configuration_is_an_artifact_and_plain_json(trained: Trained, tmp_path: Path) -> None:
    client = MlflowClient(trained.store)
    path = client.download_artifacts(trained.trials[0].info.run_id, names.CONFIG_ARTIFACT, str(tmp_path))
    config = json.loads(Path(path).read_text())
    assert len(config) > 200
    assert "0x" not in json.dumps(config), "no memory address is written down"


def tune_folder(trained: Trained) -> Path:
    (folder,) = (trained.folder / "results").glob("demo-ppo-*")
    return folder


def assert_the_same(read: RunSet, trained: Trained) -> None:
    """The store and Tune's own files tell the same of every trial, and so does what is concluded from either."""
    stored = load_runs(trained.store, "demo", metrics=["*"])
    assert differences(stored, read) == []
    assert stored.equals(read) and len(read) == 3 and read.notes == () and read.unreadable == ()
    ours, theirs = (judged(compare(runs), runs) for runs in (stored, read))
    columns = [column for column in ours.groups if column != "best_run_id"]
    assert ours.groups[columns].to_dict() == theirs.groups[columns].to_dict()
    assert ours.findings == theirs.findings and ours.notes == theirs.notes
    assert ours.verdict is not None and theirs.verdict is not None
    numbers = [{one.name: one.shown for one in done.verdict.numbers} for done in (ours, theirs) if done.verdict]
    assert numbers[0].pop("test_evaluations") == "0" and numbers[0] == numbers[1] != {}
    for trial_id, run_id in zip(stored.runs["trial_id"], stored.runs.index, strict=True):
        one, other = (bars.sort_values(["iteration", "episode", "bar"], ignore_index=True)
                      for bars in (stored.series(run_id), read.series(trial_id)))  # fmt: skip
        pd.testing.assert_frame_equal(one, other)


def test_tunes_own_result_reads_as_the_store_does(trained: Trained) -> None:
    from ray.tune import ExperimentAnalysis, ResultGrid

    analysis = ExperimentAnalysis(str(tune_folder(trained)))
    for source in (tune_folder(trained), str(tune_folder(trained)), analysis, ResultGrid(analysis)):
        assert_the_same(RunSet.from_tune(source), trained)


def test_a_tune_result_in_an_object_store_reads_the_same(trained: Trained, s3: str) -> None:
    from pyarrow.fs import LocalFileSystem, S3FileSystem, copy_files

    bucket = S3FileSystem(endpoint_override=s3, scheme="http", region="us-east-1")
    copy_files(
        str(tune_folder(trained)), "sweeps/exp", source_filesystem=LocalFileSystem(), destination_filesystem=bucket
    )
    assert_the_same(RunSet.from_tune(f"s3://sweeps/exp?endpoint_override={s3}&scheme=http&region=us-east-1"), trained)
    assert_the_same(RunSet.from_tune("sweeps/exp", filesystem=bucket), trained)


def test_without_the_trackers_files_a_result_says_what_it_lacks(trained: Trained, tmp_path: Path) -> None:
    folder = tmp_path / "untracked"
    shutil.copytree(tune_folder(trained), folder)
    for name in (names.IDENTITY_FILE, names.TRIALS_FILE):
        (folder / name).unlink()
    read = RunSet.from_tune(folder)
    assert "was not tracked while it ran" in read.notes[0]
    assert len([column for column in read.runs if str(column).startswith("param.")]) == 1, "the seed alone is searched"
    assert compare(read).groups["n_seeds"].to_list() == [3]


def test_every_trials_points_are_sealed_and_read_without_asking_for_a_metric(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MlflowClient, "get_metric_history", None)
    runs = load_runs(trained.store, "demo", metrics=["*"], cache=False)
    assert runs.unreadable == () and set(runs.metrics) == set(runs.histories["metric"].unique())


def test_the_comparison_is_printed_published_and_written(trained: Trained) -> None:
    comparison = compare(load_runs(trained.store, "demo"))
    assert comparison.best_run is not None
    best_name = comparison.best_run.name
    assert best_name in trained.output
    client = MlflowClient(trained.store)
    parent = client.get_run(trained.parent.info.run_id)
    assert best_name in parent.data.tags["mlflow.note.content"]
    pictures = {item.path for item in client.list_artifacts(parent.info.run_id, "pictures")}
    assert {"pictures/learning_curves.png", "pictures/equity_curve.png"} <= pictures
    assert (trained.folder / "report" / "report.md").is_file()


def test_the_end_says_what_opens_the_results(trained: Trained) -> None:
    assert f"mlflow ui --backend-store-uri {trained.store}" in trained.output
