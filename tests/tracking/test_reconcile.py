"""Reconciling: dead sweeps' runs are closed, live and foreign ones never, against a real store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from drl_ray_tracking import names
from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.tracking.delivery import Delivery
from drl_ray_tracking.tracking.journal import JournalWriter, new_journal_directory
from drl_ray_tracking.tracking.mlflow_sink import MlflowSink
from drl_ray_tracking.tracking.progress import Progress
from drl_ray_tracking.tracking.reconcile import reconcile
from tests.network import free_port
from tests.tracking.journals import numbered, opening, result, sweep, trial, trial_end
from tests.tracking.test_delivery import no_files

pytestmark = pytest.mark.mlflow
MINUTE_MS = 60_000
BEAT_MS = 1_000_000_000


def tracked(uri: str, sweep_id: str, beat_ms: int | None = BEAT_MS) -> Delivery:
    """A sweep with an open trial and one that ended, last heard of at a moment."""
    delivery = Delivery(MlflowSink(uri), Progress(), no_files)
    written = [opening(uri), sweep(sweep_id), trial("a"), result("a", 1), trial("b"), trial_end("b")]
    delivery.deliver(numbered(written))
    if beat_ms is not None:
        delivery.report_health({"tracker/lag_s": 0.0}, beat_ms, 1)
    return delivery


def runs(uri: str) -> dict[tuple[str, str], Any]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    found = client.search_runs(ids)
    tags = (names.TAG_SWEEP_ID, names.TAG_TRIAL_ID)
    return {(run.data.tags.get(tags[0], "foreign"), run.data.tags.get(tags[1], "")): run for run in found}


def at(minutes: float) -> Callable[[], float]:
    return lambda: (BEAT_MS + minutes * MINUTE_MS) / 1000


def test_only_dead_sweeps_are_closed(sqlite_store: Callable[[], str]) -> None:
    from mlflow.tracking import MlflowClient

    uri = sqlite_store()
    dead = tracked(uri, "dead")
    tracked(uri, "alive", BEAT_MS + 45 * MINUTE_MS)
    client = MlflowClient(uri)
    client.create_run("0")
    client.create_run("0", tags={names.TAG_ROLE: "sweep"})
    said: list[str] = []
    assert reconcile(uri, said.append, clock=at(59)) == 0
    assert reconcile(uri, said.append, clock=at(61)) == 2
    assert "2 runs set KILLED, silent for 61 minutes" in " ".join(said)
    after = runs(uri)
    assert {key: run.info.status for key, run in after.items()} == {
        ("dead", ""): "KILLED", ("dead", "a"): "KILLED", ("dead", "b"): "FINISHED",
        ("alive", ""): "RUNNING", ("alive", "a"): "RUNNING", ("alive", "b"): "FINISHED",
        ("foreign", ""): "RUNNING",
    }  # fmt: skip
    assert after["dead", "a"].info.end_time == BEAT_MS
    assert after["dead", ""].data.tags[names.TAG_END_REASON] == names.END_RECONCILED
    assert reconcile(uri, said.append, clock=at(61)) == 0, "twice changes nothing"
    dead.report_health({}, BEAT_MS + 70 * MINUTE_MS, 2)
    assert {runs(uri)["dead", name].info.status for name in ("", "a")} == {"RUNNING"}, "it was only cut off"


def test_a_sweep_that_never_reported_counts_from_its_start(sqlite_store: Callable[[], str]) -> None:
    uri = sqlite_store()
    tracked(uri, "early", None)
    said: list[str] = []
    assert reconcile(uri, said.append, clock=lambda: 1_000 + 30 * 60) == 0
    assert reconcile(uri, said.append, clock=lambda: 1_000 + 61 * 60) == 2


def test_a_sweep_of_this_machine_is_left_to_its_journal(
    sqlite_store: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from drl_ray_tracking.tracking import courier, courier_status

    uri = sqlite_store()
    delivery = tracked(uri, "here")
    directory = new_journal_directory()
    one = courier.Courier(directory, lambda opened: MlflowSink(uri))
    one._progress = delivery.progress
    one._say(courier_status.DELIVERING)
    said: list[str] = []
    writer = JournalWriter(directory)
    assert reconcile(uri, said.append, clock=at(600)) == 0
    writer.close()
    assert reconcile(uri, said.append, clock=at(600)) == 0
    assert ["runs on this machine" in said[0], "drl-track sync" in said[1]] == [True, True]


def test_one_experiment_may_be_named(sqlite_store: Callable[[], str]) -> None:
    uri = sqlite_store()
    tracked(uri, "dead")
    said: list[str] = []
    assert reconcile(uri, said.append, experiment="Default", clock=at(100)) == 0
    assert said == ["no run of this package is running"]
    assert reconcile(uri, said.append, experiment="tests", clock=at(100)) == 2
    with pytest.raises(ConfigurationError, match="no MLflow experiment"):
        reconcile(uri, said.append, experiment="nowhere")


def test_what_cannot_work_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="prove nothing"):
        reconcile("sqlite:///mlflow.db", print, older_than_min=1.0)
    with pytest.raises(ConfigurationError, match="cannot be reached"):
        reconcile(f"http://127.0.0.1:{free_port()}", print)
