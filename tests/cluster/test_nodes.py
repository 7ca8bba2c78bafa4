"""A second node beside the head: storage it does not share is found, and both nodes' load is on the sweep's run."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from drl_ray_tracking import names
from tests.cluster.conftest import Head, raylet

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

PROBE = """
import ray, sys
from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.training.probe import check_shared_storage
ray.init(address=sys.argv[1], log_to_driver=False, configure_logging=False)
try:
    check_shared_storage(sys.argv[2])
except ConfigurationError as error:
    print("REFUSED", error)
else:
    print("SHARED")
"""
SWEEP = """
import os, sys, time
import ray
from ray import tune
from drl_ray_tracking import MLflowTrackingCallback
ray.init(address=sys.argv[1], log_to_driver=False, configure_logging=False)

def train(config):
    assert "MLFLOW_TRACKING_URI" not in os.environ and "mlflow" not in sys.modules, "workers know nothing of MLflow"
    for step in range(1, 7):
        time.sleep(1)
        tune.report({"loss": 1.0 / step})

results = tune.Tuner(
    tune.with_resources(train, {"CPU": 1, "away": 0.5}),
    run_config=tune.RunConfig(
        name="two", storage_path=sys.argv[3], verbose=0,
        callbacks=[MLflowTrackingCallback(sys.argv[2], experiment_name="nodes", system_metrics=1)],
    ),
).fit()
assert not results.errors, results.errors
"""


@contextmanager
def node(head: Head, *, blind_to: Path | None = None) -> Iterator[None]:
    """A node beside the head; `blind_to` is a folder of which it sees an empty one of its own instead."""
    hide = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', str(blind_to)] if blind_to else []
    with raylet(head, *hide):
        yield


def run(head: Head, code: str, *arguments: str) -> str:
    environment = {**head.environment, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment, timeout=200,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


def can_hide_folders() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not can_hide_folders(), reason="needs the right to give a process a filesystem view of its own")
def test_storage_that_a_node_does_not_share_is_refused_before_training(ray_head: Head, tmp_path: Path) -> None:
    storage = tmp_path / "results"
    storage.mkdir()
    with node(ray_head, blind_to=storage):
        said = run(ray_head, PROBE, ray_head.address, str(storage))
    assert "REFUSED 1 of 2 nodes do not share the storage" in said
    assert "it does not see the driver's file" in said
    assert "Set `storage:` to a directory that all nodes share" in said
    assert not list(storage.iterdir()), "the probe leaves nothing behind"


def test_shared_storage_passes_and_both_nodes_load_is_on_the_sweeps_run(
    ray_head: Head, postgres_server: str, tmp_path: Path
) -> None:
    storage = tmp_path / "results"
    storage.mkdir()
    with node(ray_head):
        assert "SHARED" in run(ray_head, PROBE, ray_head.address, str(storage))
        assert not list(storage.iterdir()), "the probe leaves nothing behind"
        run(ray_head, SWEEP, ray_head.address, postgres_server, str(storage))
    client = MlflowClient(postgres_server)
    experiment = client.get_experiment_by_name("nodes")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if run.data.tags[names.TAG_ROLE] == names.ROLE_SWEEP]
    system = {key: value for key, value in parent.data.metrics.items() if key.startswith(f"{names.SYSTEM}/")}
    nodes = {key.split("/")[1] for key in system}
    assert len(nodes) == 2
    for name in nodes:
        for kind in ("cpu_percent", "memory_percent", "disk_percent", "object_store_percent"):
            assert 0 <= system[f"{names.SYSTEM}/{name}/{kind}"] <= 100
        points = client.get_metric_history(parent.info.run_id, f"{names.SYSTEM}/{name}/cpu_percent")
        steps = [point.step for point in points]
        assert len(steps) >= 3
        assert steps == sorted(set(steps)), "one point a moment"
    (trial,) = [run for run in runs if run.data.tags[names.TAG_ROLE] == names.ROLE_TRIAL]
    assert not [key for key in trial.data.metrics if key.startswith(names.SYSTEM)]
    assert trial.info.status == parent.info.status == "FINISHED"
