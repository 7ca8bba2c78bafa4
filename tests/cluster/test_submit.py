"""`drl-track submit`: a job on a Ray head, an MLflow server over PostgreSQL, numbers equal to a local run's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from drl_ray_tracking import load_runs, names
from drl_ray_tracking.errors import DataError
from drl_ray_tracking.home import HOME_VARIABLE
from tests.cluster.conftest import Head
from tests.cluster.runs import comparable, drl_track, small, trials_of

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]


def test_a_submitted_sweep_has_the_numbers_of_a_local_one(ray_head: Head, postgres_server: str, tmp_path: Path) -> None:
    config = small(tmp_path, "here")
    local = drl_track("train", str(config), cwd=tmp_path, MLFLOW_TRACKING_URI=postgres_server, RAY_ADDRESS="local")
    assert local.returncode == 0, local.stdout[-2000:] + local.stderr[-2000:]

    config = small(tmp_path, "there", storage=str(tmp_path / "shared"))
    done = drl_track(
        "submit", "small.yaml", "--address", ray_head.dashboard, "--tracking-uri", postgres_server,
        "--env", f"{HOME_VARIABLE}={tmp_path / 'cluster-home'}", "--submission-id", "drl-equal",
        cwd=tmp_path, RAY_ADDRESS="http://192.0.2.1:8265",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert f"{postgres_server}/#/experiments/" in done.stdout, "the link that opens the sweep"

    client = MlflowClient(postgres_server)
    here, there = trials_of(client, "here"), trials_of(client, "there")
    assert [run.data.tags[names.TAG_SEED] for run in here] == [run.data.tags[names.TAG_SEED] for run in there]
    for mine, theirs in zip(here, there, strict=True):
        assert theirs.info.status == "FINISHED"
        assert theirs.data.tags[names.TAG_CONFIG_HASH] == mine.data.tags[names.TAG_CONFIG_HASH]
        assert theirs.data.tags[names.TAG_WINDOW_ID] == mine.data.tags[names.TAG_WINDOW_ID]
        assert theirs.data.tags["mlflow.user"] == mine.data.tags["mlflow.user"]
        assert theirs.data.tags["mlflow.source.name"] == "small.yaml"
        assert theirs.data.tags[names.TAG_SUBMISSION_ID] == "drl-equal"
        assert {"eval/trading/sharpe", "train/episode/return_mean"} <= set(comparable(mine))
        assert comparable(theirs) == pytest.approx(comparable(mine), rel=1e-12, nan_ok=True)
    of_job = load_runs(postgres_server, ["here", "there"], job="drl-equal", metrics=[])
    assert set(of_job.runs.index) == {run.info.run_id for run in there}
    by_number = load_runs(postgres_server, "there", job=there[0].data.tags[names.TAG_JOB_ID], metrics=[])
    assert set(by_number.runs.index) == set(of_job.runs.index)
    seeds = load_runs(postgres_server, ["here", "there"], where={names.TAG_SEED: "2"}, metrics=[])
    assert set(seeds.runs.index) == {here[1].info.run_id, there[1].info.run_id}
    with pytest.raises(DataError, match="the job 'drl-equal' with"):
        load_runs(postgres_server, "there", job="drl-equal", where={names.TAG_SEED: "3"})
    compared = drl_track(
        "compare", "there", "--job", "drl-equal", "--where", f"{names.TAG_SYMBOLS}=GOOGL", "--no-publish",
        "--tracking-uri", postgres_server, cwd=tmp_path,
    )  # fmt: skip
    assert compared.returncode == 0, compared.stderr[-2000:]
    assert np.isfinite([run.data.metrics["eval/trading/max_drawdown"] for run in there]).all()


def test_a_job_that_is_refused_gives_its_exit_code(ray_head: Head, tmp_path: Path) -> None:
    config = small(tmp_path, "refused")
    done = drl_track(
        "submit", str(config), "--address", ray_head.dashboard, "--env", f"{HOME_VARIABLE}={tmp_path}", cwd=tmp_path
    )
    assert done.returncode == 2, done.stdout[-3000:] + done.stderr[-3000:]
    assert "would lie in a Ray session directory" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
