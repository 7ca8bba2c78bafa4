"""`ray job submit` of the demo configuration, unchanged, against a Ray head on this machine."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from drl_ray_tracking import names
from drl_ray_tracking.tracking.journal import HOME_VARIABLE
from tests.cluster.conftest import Head, ray_command

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[2]


def submit(head: Head, variables: dict[str, str], config: str) -> subprocess.CompletedProcess[str]:
    excludes = [".git", ".venv", "tests", "demo-report"]
    environment = json.dumps({"env_vars": variables, "excludes": excludes})
    return subprocess.run(
        [
            ray_command(), "job", "submit", "--address", head.dashboard, "--working-dir", str(ROOT),
            "--runtime-env-json", environment, "--", sys.executable, "cluster/submit_entry.py", config,
        ],
        capture_output=True, text=True, timeout=800, check=False, env=head.environment,
    )  # fmt: skip


def test_the_demo_runs_unchanged_with_store_and_journal_outside_rays_session(ray_head: Head, tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/mlflow.db"
    home = tmp_path / "home"
    done = submit(ray_head, {"MLFLOW_TRACKING_URI": store, HOME_VARIABLE: str(home)}, "configs/demo.yaml")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("demo")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    parents = [run for run in runs if run.data.tags[names.TAG_ROLE] == names.ROLE_SWEEP]
    trials = [run for run in runs if run.data.tags[names.TAG_ROLE] == names.ROLE_TRIAL]
    assert len(parents) == 1
    assert len(trials) == 6
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert all(names.DEFAULT_METRIC in run.data.metrics for run in trials)
    submission = re.search(r"raysubmit_\w+", done.stdout)
    assert submission is not None
    assert parents[0].data.tags[names.TAG_SUBMISSION_ID] == submission.group()
    assert (home / "journals").is_dir(), "the journal lay where it was told to"
    assert not list((home / "journals").iterdir()), "a journal delivered in full is gone"
    assert not list(ray_head.temp_dir.rglob("mlflow.db"))


def test_a_store_inside_rays_session_is_refused_before_training(ray_head: Head) -> None:
    done = submit(ray_head, {"MLFLOW_TRACKING_URI": "sqlite:///mlflow.db"}, "configs/demo.yaml")
    assert done.returncode != 0
    assert "would lie in a Ray session directory" in done.stdout
    assert "Traceback" not in done.stdout
