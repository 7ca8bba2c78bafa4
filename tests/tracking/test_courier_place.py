"""Where a courier works: beside a SQLite store, never where artifacts would be rooted in a journal it deletes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from drl_ray_tracking import MLflowTrackingCallback
from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.tracking.courier_process import carry
from drl_ray_tracking.tracking.courier_status import read_status
from drl_ray_tracking.tracking.spool import Spool
from drl_ray_tracking.tracking.target import artifact_place, resolve_target, working_folder
from tests.network import free_port
from tests.tracking.journals import opening, result, sweep, sweep_end, trial, trial_end
from tests.tracking.test_courier import left_behind
from tests.waiting import wait_until


def test_a_relative_place_for_artifacts_is_below_the_working_directory(
    sqlite_store: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    uri = sqlite_store()
    assert MLflowTrackingCallback(uri, artifact_location="files").artifact_location == f"{tmp_path}/files"
    target = resolve_target(uri)
    assert artifact_place(None, target) == target.artifact_root
    assert artifact_place("file:files", target) == f"{tmp_path}/files"
    assert artifact_place("~/files", target) == f"{Path.home()}/files"
    for given in ("s3://bucket/files", "mlflow-artifacts:/x", "/srv/files", "file:///srv/files"):
        assert artifact_place(given, target) == given
    assert artifact_place("files", resolve_target("http://host:5000")) == "files", "the server's own path"


def test_a_place_for_artifacts_that_ray_deletes_is_refused(tmp_path: Path) -> None:
    session = tmp_path / "session_2026-01-31_10-11-12_123456_789"
    with pytest.raises(ConfigurationError, match="Ray deletes"):
        artifact_place("files", resolve_target("postgresql://host/db"), cwd=session)


def test_a_database_keeps_artifacts_where_the_driver_works(tmp_path: Path) -> None:
    target = resolve_target("postgresql://host/db", cwd=tmp_path)
    assert target.artifact_root == f"{tmp_path}/mlartifacts"
    assert working_folder(target.uri, target.artifact_root) == tmp_path
    assert working_folder(target.uri, f"{tmp_path}/no/such") is None
    session = tmp_path / "session_2026-01-31_10-11-12_123456_789"
    assert resolve_target("mysql://host/db", cwd=session).artifact_root == str(Path.home() / "mlartifacts")


@pytest.mark.mlflow
def test_artifacts_outlive_the_journal(sqlite_store: Callable[[], str], tmp_path: Path) -> None:
    from mlflow.artifacts import list_artifacts
    from mlflow.tracking import MlflowClient

    uri = sqlite_store()
    location = artifact_place("files", resolve_target(uri), cwd=tmp_path)
    written = [sweep(), trial("a", config={"lr": 1}), result("a", 1), trial_end("a"), sweep_end()]
    directory = left_behind([opening(uri, artifact_location=location), *written])
    assert carry(directory)
    assert not directory.exists()
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("tests")
    runs = client.search_runs([experiment.experiment_id], "tags.`drl.trial_id` = 'a'")
    assert experiment.artifact_location == f"{tmp_path}/files"
    assert list_artifacts(run_id=runs[0].info.run_id, tracking_uri=uri)


def test_a_path_on_the_server_need_not_exist_here() -> None:
    location = "/srv/not/on/this/machine/artifacts"
    directory = left_behind([opening(f"http://127.0.0.1:{free_port()}", artifact_location=location), sweep()])
    assert not carry(directory, orphan_limit_s=0.0)
    status = read_status(directory)
    assert status is not None
    assert "Max retries exceeded" in status.message


def test_a_sqlite_store_that_is_gone_is_out_of_reach_and_named(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/gone/mlflow.db"
    directory = left_behind([opening(uri, artifact_location=f"{tmp_path}/gone/mlartifacts"), sweep()])
    cwd = Path.cwd()
    assert not carry(directory, orphan_limit_s=0.0)
    status = read_status(directory)
    assert status is not None
    assert f"{tmp_path}/gone cannot be entered" in status.message
    assert Path.cwd() == cwd


@pytest.fixture
def relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home and a token file beside where the driver works."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DRL_TRACK_HOME", "own")
    (tmp_path / "token").write_text("t0k3n")
    monkeypatch.setenv("DRL_TRACK_TOKEN_FILE", "token")


@pytest.mark.mlflow
def test_paths_in_the_environment_are_relative_to_where_the_driver_works(
    sqlite_store: Callable[[], str], tmp_path: Path, relative_paths: None
) -> None:
    opened: Any = opening(sqlite_store())[2]
    spool = Spool.open(opened, credentials={})
    for event in [sweep(), trial("a"), result("a", 1), trial_end("a"), sweep_end()]:
        assert spool.append(*event)
    assert spool.close(60.0)
    wait_until(lambda: not spool.directory.exists(), timeout_s=20, what="the delivered journal is removed")
    assert {path.name for path in (tmp_path / "own").iterdir()} == {"journals", "locks"}


@pytest.mark.mlflow
def test_what_is_delivered_in_this_process_finds_them_too(
    sqlite_store: Callable[[], str], tmp_path: Path, relative_paths: None
) -> None:
    written = [opening(sqlite_store()), sweep(), trial("a"), trial_end("a"), sweep_end()]
    assert carry(left_behind(written), orphan_limit_s=0.0)
    assert list((tmp_path / "own" / "locks").iterdir())
    assert os.environ["DRL_TRACK_HOME"] == "own"
