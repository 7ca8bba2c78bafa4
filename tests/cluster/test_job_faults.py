"""Jobs that do not end as they should, or start all at once: a node killed, a job stopped, four drivers together."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from drl_ray_tracking import names
from drl_ray_tracking.home import HOME_VARIABLE
from tests.cluster.conftest import Head, ray_command, raylet
from tests.cluster.runs import comparable, drl_track, small, started, trials_of
from tests.waiting import wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
ITERATIONS = 10
ITERATION = names.mlflow_name(names.ITERATION)


def results(folder: Path) -> Iterator[list[dict[str, Any]]]:
    """Yields what Tune has written down of each trial below a folder so far."""
    for file in folder.glob("**/PPO*/result.json"):
        whole = [line for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")]
        if whole:
            yield [json.loads(line) for line in whole]


def value(client: MlflowClient, run: Run, key: str) -> list[float]:
    return [point.value for point in client.get_metric_history(run.info.run_id, key)]


def test_trials_of_a_killed_node_go_on_elsewhere_in_the_same_runs(
    ray_head: Head, postgres_server: str, tmp_path: Path
) -> None:
    long = {"seeds": [1, 2, 3, 4], "stop": {"training_iteration": ITERATIONS}, "evaluation": {"interval": 1}}
    storage = tmp_path / "shared"
    config = small(tmp_path, "killed node", storage=str(storage), **long)
    home = tmp_path / "cluster-home"
    with raylet(ray_head), raylet(ray_head) as doomed:
        job = started(
            "submit", str(config), "--address", ray_head.dashboard, "--tracking-uri", postgres_server,
            "--env", f"{HOME_VARIABLE}={home}", cwd=tmp_path,
        )  # fmt: skip
        try:
            with_a_checkpoint = wait_until(
                lambda: trial_in_the_middle(storage, doomed.pid, job), timeout_s=400, what="a trial trains on that node"
            )
            os.killpg(doomed.pid, signal.SIGKILL)
            out, err = job.communicate(timeout=600)
        finally:
            job.kill()
    assert job.returncode == 0, out[-3000:] + err[-2000:]

    client = MlflowClient(postgres_server)
    there = trials_of(client, "killed node")
    assert [run.data.tags[names.TAG_SEED] for run in there] == ["1", "2", "3", "4"], "one run each, no stray"
    (parent,) = trials_of(client, "killed node", names.ROLE_SWEEP)
    assert {run.info.status for run in (parent, *there)} == {"FINISHED"}
    attempts = {run.data.tags[names.TAG_TRIAL_ID]: json.loads(run.data.tags[names.TAG_ATTEMPTS]) for run in there}
    restarted = {trial for trial, made in attempts.items() if len(made) > 1}
    assert with_a_checkpoint in restarted
    assert len(restarted) < len(there), "only what ran on that node started again"
    assert attempts[with_a_checkpoint][-1][2] > 0, "it went on from a checkpoint, not from the start"
    for run in there:
        assert max(value(client, run, ITERATION)) == ITERATIONS
        assert set(value(client, run, ITERATION)) == set(map(float, range(1, ITERATIONS + 1)))

    untouched = [run for run in there if run.data.tags[names.TAG_TRIAL_ID] not in restarted]
    config = small(tmp_path, "no node killed", **{**long, "seeds": [int(untouched[0].data.tags[names.TAG_SEED])]})
    local = drl_track("train", str(config), cwd=tmp_path, MLFLOW_TRACKING_URI=postgres_server, RAY_ADDRESS="local")
    assert local.returncode == 0, local.stdout[-2000:] + local.stderr[-2000:]
    (mine,) = trials_of(client, "no node killed")
    assert comparable(untouched[0]) == pytest.approx(comparable(mine), rel=1e-12, nan_ok=True)


def trial_in_the_middle(storage: Path, node: int, job: subprocess.Popen[str]) -> str:
    """The id of a trial that trains on a node, has a checkpoint and is far from its end; else nothing."""
    assert job.poll() is None, job.communicate()[0][-3000:]
    for process in psutil.Process(node).children(recursive=True):
        with suppress(psutil.Error):  # it may end while it is looked at
            # Tune has each trial work in a directory of the trial's name; checkpoints go to the storage at once.
            name = Path(process.cwd()).name
            found = storage.glob(f"*/{name}/checkpoint_*") if name.startswith("PPO") else []
            if 1 <= max((int(folder.name.rpartition("_")[2]) for folder in found), default=0) <= ITERATIONS - 5:
                return "_".join(name.split("_")[2:4])
    return ""


def test_a_stopped_job_leaves_runs_killed_and_nothing_waiting(
    ray_head: Head, postgres_server: str, tmp_path: Path
) -> None:
    storage, home = tmp_path / "shared", tmp_path / "cluster-home"
    config = small(tmp_path, "stopped", storage=str(storage), stop={"training_iteration": 10_000})
    detached = drl_track(
        "submit", str(config), "--detach", "--address", ray_head.dashboard, "--tracking-uri", postgres_server,
        "--env", f"{HOME_VARIABLE}={home}", "--submission-id", "drl-stopped", cwd=tmp_path,
    )  # fmt: skip
    assert detached.returncode == 0, detached.stdout[-2000:] + detached.stderr[-2000:]
    client = MlflowClient(postgres_server)

    def under_way() -> bool:
        runs = trials_of(client, "stopped")
        return len(runs) == 2 and all(len(value(client, run, ITERATION)) >= 2 for run in runs)

    wait_until(under_way, timeout_s=300, what="both trials have values in MLflow")
    stopping = subprocess.run(
        [ray_command(), "job", "stop", "--address", ray_head.dashboard, "drl-stopped"],
        capture_output=True, text=True, timeout=120, check=False, env=ray_head.environment,
    )  # fmt: skip
    assert stopping.returncode == 0, stopping.stdout + stopping.stderr
    wait_until(lambda: not list((home / "journals").iterdir()), timeout_s=240, what="the queue is drained and gone")

    runs = [*trials_of(client, "stopped"), *trials_of(client, "stopped", names.ROLE_SWEEP)]
    assert len(runs) == 3
    assert {run.info.status for run in runs} == {"KILLED"}
    # What the hooks were given is what Tune's own logger was given right after them, on the driver's disk.
    told = [
        written for written in results(ray_head.temp_dir) if written[0]["trial_id"] in {trial_of(run) for run in runs}
    ]
    assert len(told) == 2
    for written in told:
        (run,) = [run for run in runs if trial_of(run) == written[0]["trial_id"]]
        given, sent = [float(line["training_iteration"]) for line in written], value(client, run, ITERATION)
        assert sent[: len(given)] == given
        assert len(sent) <= len(given) + 1


def trial_of(run: Run) -> str:
    return str(run.data.tags.get(names.TAG_TRIAL_ID, ""))


def test_four_drivers_at_once_into_one_new_experiment(ray_head: Head, postgres_server: str, tmp_path: Path) -> None:
    jobs = []
    for number in range(4):
        folder = tmp_path / f"driver{number}"
        folder.mkdir()
        each = {"storage": str(folder / "shared"), "seeds": [number + 1], "evaluation": {"interval": 1}}
        config = small(folder, "together", **each)
        job = started(
            "submit", str(config), "--address", ray_head.dashboard, "--tracking-uri", postgres_server,
            "--env", f"{HOME_VARIABLE}={folder / 'cluster-home'}", "--submission-id", f"drl-together-{number}",
            cwd=folder,
        )  # fmt: skip
        jobs.append(job)
    try:
        for job in jobs:
            out, err = job.communicate(timeout=600)
            assert job.returncode == 0, out[-3000:] + err[-2000:]
    finally:
        for job in jobs:
            job.kill()

    client = MlflowClient(postgres_server)
    assert [found.name for found in client.search_experiments()].count("together") == 1
    experiment = client.get_experiment_by_name("together")
    assert experiment is not None
    everything = client.search_runs([experiment.experiment_id])
    parents = trials_of(client, "together", names.ROLE_SWEEP)
    trials = trials_of(client, "together")
    assert len(parents) == 4
    assert len(trials) == 4
    assert len(everything) == 8, "no stray run"
    assert {run.info.status for run in everything} == {"FINISHED"}
    assert {run.data.tags[names.TAG_SUBMISSION_ID] for run in parents} == {f"drl-together-{n}" for n in range(4)}
    for number, run in enumerate(trials):
        (parent,) = [one for one in parents if one.info.run_id == run.data.tags["mlflow.parentRunId"]]
        assert parent.data.tags[names.TAG_SUBMISSION_ID] == run.data.tags[names.TAG_SUBMISSION_ID]
        (written,) = results(tmp_path / f"driver{number}" / "shared")
        assert value(client, run, ITERATION) == [line["training_iteration"] for line in written]
        sent = [line["evaluation"]["env_runners"]["trading"]["sharpe"] for line in written]
        assert value(client, run, "eval/trading/sharpe") == pytest.approx(sent, rel=1e-12)
