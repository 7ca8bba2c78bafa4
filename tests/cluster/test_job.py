"""`ray job submit` of the demo configuration, unchanged, on a head and two more nodes, into MLflow over PostgreSQL."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from drl_ray_tracking import names
from drl_ray_tracking.home import HOME_VARIABLE
from tests.cluster.conftest import Head, ray_command, raylet
from tests.cluster.runs import comparable, drl_track, trials_of
from tests.waiting import wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1500)]
ROOT = Path(__file__).parents[2]


def submit(head: Head, folder: Path, config: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Submits as cluster/README.md says, with variables of the test's own."""
    environment = yaml.safe_load((ROOT / "cluster" / "runtime_env.yaml").read_text())
    environment["env_vars"].update(variables)
    (folder / "runtime_env.yaml").write_text(yaml.safe_dump(environment))
    return subprocess.run(
        [
            ray_command(), "job", "submit", "--address", head.dashboard, "--working-dir", str(ROOT),
            "--runtime-env", str(folder / "runtime_env.yaml"), "--",
            sys.executable, "cluster/submit_entry.py", config,
        ],
        capture_output=True, text=True, timeout=1200, check=False, env=head.environment,
    )  # fmt: skip


def test_the_demo_on_three_nodes_has_the_numbers_of_a_local_run(
    ray_head: Head, postgres_server: str, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    with raylet(ray_head), raylet(ray_head):
        done = submit(
            ray_head, tmp_path, "configs/demo.yaml", MLFLOW_TRACKING_URI=postgres_server, **{HOME_VARIABLE: str(home)}
        )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    submission = re.search(r"raysubmit_\w+", done.stdout)
    assert submission is not None
    client = MlflowClient(postgres_server)
    (parent,) = of_job(trials_of(client, "demo", names.ROLE_SWEEP), submission.group())
    there = of_job(trials_of(client, "demo"), submission.group())
    assert len(there) == 6
    assert {run.info.status for run in (parent, *there)} == {"FINISHED"}
    assert all(names.DEFAULT_METRIC in run.data.metrics for run in there)
    nodes = {key.split("/")[1] for key in parent.data.metrics if key.startswith(f"{names.SYSTEM}/")}
    assert len(nodes) == 3
    journals = home / "journals"  # where it was told to
    wait_until(lambda: not list(journals.iterdir()), timeout_s=300, what="the courier has drawn, delivered and gone")
    assert not list(ray_head.temp_dir.rglob("mlflow.db"))

    # One of the six here, alone: what a trial computes depends neither on where it runs nor on who runs beside it.
    config = yaml.safe_load((ROOT / "configs" / "demo.yaml").read_text())
    config.update(experiment="demo here", seeds=[2], search={"lr": {"grid": [1.0e-3]}})
    (tmp_path / "here.yaml").write_text(yaml.safe_dump(config))
    local = drl_track("train", "here.yaml", cwd=tmp_path, MLFLOW_TRACKING_URI=postgres_server, RAY_ADDRESS="local")
    assert local.returncode == 0, local.stdout[-2000:] + local.stderr[-2000:]
    (mine,) = trials_of(client, "demo here")
    same = {key: mine.data.tags[key] for key in (names.TAG_SEED, names.TAG_CONFIG_HASH)}
    (theirs,) = [run for run in there if same.items() <= run.data.tags.items()]
    assert names.DEFAULT_METRIC in comparable(mine)
    assert comparable(theirs) == pytest.approx(comparable(mine), rel=1e-12, nan_ok=True)


def of_job(runs: list[Run], submission: str) -> list[Run]:
    return [run for run in runs if run.data.tags.get(names.TAG_SUBMISSION_ID) == submission]


def test_a_store_inside_rays_session_is_refused_before_training(ray_head: Head, tmp_path: Path) -> None:
    done = submit(ray_head, tmp_path, "configs/demo.yaml", MLFLOW_TRACKING_URI="sqlite:///mlflow.db")
    assert done.returncode != 0
    assert "would lie in a Ray session directory" in done.stdout
    assert "Traceback" not in done.stdout
