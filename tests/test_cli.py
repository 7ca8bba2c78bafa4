"""The command line: each mistake of the user's ends before training, in one message, with exit code 2."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.network import free_port

CONFIG: dict[str, Any] = {
    "experiment": "cli",
    "data": {"source": "gym_anytrading:GOOGL"},
    "agents": [{"algorithm": "PPO"}],
    "stop": {"training_iteration": 1},
}


def drl_track(*arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "200", "DRL_TRACK_HOME": str(cwd / "home"), **variables}
    environment.pop("MLFLOW_TRACKING_URI", None)
    command = [sys.executable, "-m", "drl_ray_tracking.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=120, check=False)


def assert_refused(done: subprocess.CompletedProcess[str], message: str) -> None:
    assert done.returncode == 2, done.stdout + done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert done.stderr.count("error:") == 1


def write(tmp_path: Path, **changes: Any) -> str:
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump({**CONFIG, **changes}))
    return str(path)


def test_a_missing_configuration(tmp_path: Path) -> None:
    assert_refused(drl_track("train", "none.yaml", cwd=tmp_path), "none.yaml cannot be read")


def test_a_misspelt_key(tmp_path: Path) -> None:
    config = write(tmp_path, agents=[{"algoritm": "PPO"}])
    assert_refused(
        drl_track("train", config, cwd=tmp_path), "agents[0].algoritm: unknown key (did you mean 'algorithm'?)"
    )


def test_a_missing_data_file(tmp_path: Path) -> None:
    data = {"source": "prices.csv", "symbol": "X", "timeframe": "1d", "periods_per_year": 252}
    assert_refused(drl_track("train", write(tmp_path, data=data), cwd=tmp_path), "prices.csv")


def test_overlapping_splits(tmp_path: Path) -> None:
    split = {
        "train": ["2010-01-01", "2014-06-01"],
        "validation": ["2014-01-01", "2016-01-01"],
        "test": ["2016-01-02", "2018-01-01"],
    }
    assert_refused(drl_track("train", write(tmp_path, split=split), cwd=tmp_path), "validation")


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("htp://localhost:5000", "unknown scheme 'htp' (did you mean 'http'?)"),
        ("file:///somewhere/mlruns", "is a file store, which MLflow no longer supports"),
        ("sqlite:///no/such/folder/mlflow.db", "does not exist"),
    ],
)
def test_a_malformed_tracking_uri(tmp_path: Path, uri: str, message: str) -> None:
    assert_refused(drl_track("train", write(tmp_path, tracking={"uri": uri}), cwd=tmp_path), message)


@pytest.mark.mlflow
def test_an_unreachable_server(tmp_path: Path) -> None:
    config = write(tmp_path, tracking={"uri": f"http://127.0.0.1:{free_port()}"})
    done = drl_track("train", config, cwd=tmp_path)
    assert_refused(done, "cannot be reached")
    assert "offline: true" in done.stderr


def test_the_old_api_stack(tmp_path: Path) -> None:
    agents = [{"algorithm": "PPO", "training": {"enable_env_runner_and_connector_v2": False}}]
    assert_refused(drl_track("train", write(tmp_path, agents=agents), cwd=tmp_path), "old API stack")


@pytest.mark.mlflow
def test_comparing_in_a_store_that_is_not_there(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/mlflow.db"
    assert_refused(drl_track("compare", "nowhere", "--tracking-uri", store, cwd=tmp_path), "there is no tracking store")


def test_syncing_nothing_says_so(tmp_path: Path) -> None:
    done = drl_track("sync", cwd=tmp_path)
    assert done.returncode == 0
    assert "nothing is waiting" in done.stdout


def test_importing_what_is_no_experiment(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/mlflow.db"
    assert_refused(
        drl_track("import-tune", str(tmp_path), "--tracking-uri", store, cwd=tmp_path), "is no Tune experiment"
    )


def test_reconciling_too_soon(tmp_path: Path) -> None:
    assert_refused(drl_track("reconcile", "--older-than", "1", cwd=tmp_path), "prove nothing")


@pytest.mark.mlflow
def test_the_doctors_exit_code(tmp_path: Path) -> None:
    right = drl_track("doctor", "--tracking-uri", f"sqlite:///{tmp_path}/mlflow.db", cwd=tmp_path)
    assert right.returncode == 0, right.stdout
    assert "WRONG" not in right.stdout
    wrong = drl_track("doctor", "--tracking-uri", f"http://127.0.0.1:{free_port()}", cwd=tmp_path)
    assert wrong.returncode == 1
    assert "start the server" in wrong.stdout
