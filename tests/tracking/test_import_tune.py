"""Importing what Tune left on disk: written by hand here, by a real Tuner in test_lifecycle_tune.py."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from drl_ray_tracking import names
from drl_ray_tracking.errors import ConfigurationError, JournalError
from drl_ray_tracking.fingerprint import config_hash, jsonable
from drl_ray_tracking.tracking import events
from drl_ray_tracking.tracking.delivery import Delivery
from drl_ray_tracking.tracking.import_tune import ImportOutcome, import_tune
from drl_ray_tracking.tracking.journal import JournalWriter, journals
from drl_ray_tracking.tracking.leftovers import sync_leftovers
from drl_ray_tracking.tracking.mlflow_sink import MlflowSink
from drl_ray_tracking.tracking.progress import Progress
from drl_ray_tracking.trials.past import read_experiment
from drl_ray_tracking.trials.place import Place
from tests.network import free_port
from tests.tracking.journals import numbered, opening, result, sweep, trial
from tests.tracking.test_callback_tune import runs_of
from tests.tracking.test_delivery import no_files

START_S = 1_700_000_000


def line(trial_id: str, iteration: int, *, lr: float = 0.1, since: int | None = None, **more: Any) -> dict[str, Any]:
    return {
        "loss": 1.0 / iteration, "nested": {"nan": float("nan")}, "done": False, "training_iteration": iteration,
        "trial_id": trial_id, "timestamp": START_S + iteration // 2, "time_this_iter_s": 0.4,
        "iterations_since_restore": since or iteration,
        "config": {"lr": lr, "fn": "<function f at 0x7f00dead>", "api_key": "s3cret-s3cret"}, **more,
    }  # fmt: skip


LINES = {
    "ab_0": [line("ab_0", n) for n in (1, 2, 3)],
    "ab_1": [
        *[line("ab_1", n) for n in (1, 2, 3, 4)],
        *[line("ab_1", n, lr=0.2, since=n - 2) for n in (3, 4, 5)],
    ],
    "ab_2": [],
}
STATUS = {"ab_0": "TERMINATED", "ab_1": "RUNNING", "ab_2": "ERROR"}


def experiment(tmp_path: Path, *, state: bool = True) -> Path:
    """Three trials: one whole, one restored with another learning rate and never ended, one that failed at once."""
    folder = tmp_path / "old"
    described = []
    for trial_id, lines in LINES.items():
        place = folder / f"train_{trial_id}_x"
        place.mkdir(parents=True)
        if lines:
            (place / "result.json").write_text("".join(json.dumps(one) + "\n" for one in lines))
        else:
            (place / "params.json").write_text('{"lr": 0.3}')
            (place / "error.txt").write_text("Traceback\nValueError: boom\n")
        known = {
            "trial_id": trial_id, "trainable_name": "train", "relative_logdir": place.name,
            "status": STATUS[trial_id], "evaluated_params": {"lr": 0.1}, "stopping_criterion": {},
        }  # fmt: skip
        described.append([json.dumps(known), json.dumps({"last_result": {**(lines or [{}])[-1], "done": True}})])
    if state:
        (folder / "experiment_state-2026.json").write_text(json.dumps({"trial_data": described}))
    return folder


def do_import(folder: Path, uri: str) -> ImportOutcome:
    return import_tune(folder, uri, "past", now_ms=lambda: 10**13)


def contents(uri: str) -> dict[str, Any]:
    """Everything the store says of an experiment's runs."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    found = {}
    for trial_id, run in runs_of(uri, "past").items():
        if trial_id:
            points = {key: client.get_metric_history(run.info.run_id, key) for key in run.data.metrics}
            found[trial_id] = (
                run.to_dictionary(),
                {key: [(p.step, p.timestamp, p.value) for p in values] for key, values in points.items()},
            )
    return found


def without_seals(found: dict[str, Any]) -> dict[str, Any]:
    """Leaves out what tells readers of a file with every point: whoever delivers to a run again takes it away."""
    for described, _ in found.values():
        described["data"]["tags"].pop(names.TAG_HISTORIES, None)
    return found


@pytest.mark.mlflow
def test_a_past_experiment_becomes_runs_once(tmp_path: Path, sqlite_store: Callable[[], str]) -> None:
    from mlflow.tracking import MlflowClient

    uri, folder = sqlite_store(), experiment(tmp_path)
    first = do_import(folder, uri)
    assert (first.runs, first.journal) == (4, None)
    runs = runs_of(uri, "past")
    assert {key: run.info.status for key, run in runs.items()} == {
        "": "KILLED", "ab_0": "FINISHED", "ab_1": "KILLED", "ab_2": "FAILED",
    }  # fmt: skip
    whole, restored, failed = (runs[key] for key in ("ab_0", "ab_1", "ab_2"))
    assert whole.data.params == {"lr": "0.1", "fn": "<function f>", "api_key": "<redacted>"}
    assert failed.data.params == {"lr": "0.3"}
    assert failed.data.tags[names.TAG_ERROR] == "ValueError: boom"
    assert runs[""].data.tags[names.TAG_IMPORTED] == str(folder)
    attempts = json.loads(restored.data.tags[names.TAG_ATTEMPTS])
    assert [(number, step) for number, _, step in attempts] == [(1, 0), (2, 2)]
    history = MlflowClient(uri).get_metric_history(restored.info.run_id, "loss")
    late = [point.step for point in history if point.timestamp >= attempts[1][1]]
    assert (len(history), late) == (7, [3, 4, 5])
    assert restored.data.tags["hparam.lr"] == "0.2"
    before = contents(uri)
    moved = folder.rename(tmp_path / "moved")
    again = do_import(moved, uri)
    assert again == ImportOutcome(first.sweep_id, 0, 0, None)
    assert contents(uri) == before
    assert not list(journals())


@pytest.mark.mlflow
def test_a_sweep_that_was_tracked_is_only_completed(tmp_path: Path, sqlite_store: Callable[[], str]) -> None:
    uri, folder = sqlite_store(), experiment(tmp_path)
    identity = {"sweep_id": "s1", "epoch": 1, "name": "old"}
    (folder / names.IDENTITY_FILE).write_text(json.dumps(identity))
    live = [
        opening(uri, experiment_name="past", artifact_location=str(tmp_path / "files")),
        sweep("s1"),
        trial("ab_0", params={"lr": "9"}),
        result("ab_0", 1),
    ]
    Delivery(MlflowSink(uri), Progress(), no_files).deliver(numbered(live))
    known = contents(uri)["ab_0"]
    outcome = do_import(folder, uri)
    assert (outcome.sweep_id, outcome.runs) == ("s1", 2)
    described, points = contents(uri)["ab_0"]
    assert [step for step, _, _ in points["loss"]] == [1, 2, 3]
    assert points["loss"][0] == known[1]["loss"][0]
    assert described["data"]["params"] == {"lr": "9"}
    assert described["data"]["tags"][names.TAG_ATTEMPTS] == known[0]["data"]["tags"][names.TAG_ATTEMPTS]
    assert described["info"]["status"] == "FINISHED"
    assert do_import(folder, uri).points == 0


@pytest.mark.mlflow
def test_a_sweep_that_still_runs_is_left_alone(tmp_path: Path, sqlite_store: Callable[[], str]) -> None:
    uri, folder = sqlite_store(), experiment(tmp_path)
    (folder / names.IDENTITY_FILE).write_text(json.dumps({"sweep_id": "s1", "epoch": 1, "name": "old"}))
    delivery = Delivery(MlflowSink(uri), Progress(), no_files)
    delivery.deliver(
        numbered([opening(uri, experiment_name="past", artifact_location=str(tmp_path / "files")), sweep("s1")])
    )
    delivery.report_health({}, 10**13 - 60_000, 1)
    with pytest.raises(ConfigurationError, match="still running"):
        do_import(folder, uri)


@pytest.mark.mlflow
def test_a_store_that_goes_away_leaves_a_journal(
    tmp_path: Path, sqlite_store: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from drl_ray_tracking.tracking import import_tune as module

    uri, folder = sqlite_store(), experiment(tmp_path)
    monkeypatch.setattr(module.courier_process, "carry", lambda directory, orphan_limit_s: False)
    outcome = do_import(folder, uri)
    assert outcome.journal == next(journals())
    monkeypatch.undo()
    monkeypatch.setenv("DRL_TRACK_HOME", str(outcome.journal.parents[1]))
    assert do_import(folder, uri).runs == 4, "the import is repeated"
    before = without_seals(contents(uri))
    assert sync_leftovers(lambda text: None)
    assert without_seals(contents(uri)) == before, "and the journal that was left adds nothing"


@pytest.mark.mlflow
def test_a_configuration_that_is_no_json_is_imported_as_it_would_be_tracked(
    tmp_path: Path, sqlite_store: Callable[[], str]
) -> None:
    uri, folder = sqlite_store(), experiment(tmp_path)
    wild = {"lr": 0.1, "clip": float("inf"), "nested": {"floor": [float("-inf"), float("nan")]}}
    lines = [line("ab_0", n, config=wild) for n in (1, 2)]
    (folder / "train_ab_0_x" / "result.json").write_text("".join(json.dumps(one) + "\n" for one in lines))
    (folder / "train_ab_0_x" / "params.json").write_text(json.dumps(wild))
    assert do_import(folder, uri).journal is None
    described, _ = contents(uri)["ab_0"]
    assert described["data"]["params"]["clip"] == "inf"
    assert described["data"]["tags"][names.TAG_CONFIG_HASH] == config_hash(jsonable(wild))
    assert not list(journals())


@pytest.mark.mlflow
def test_half_a_journal_does_not_stay(
    tmp_path: Path, sqlite_store: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    append = JournalWriter.append

    def full(self: JournalWriter, kind: str, *arguments: Any, **keywords: Any) -> int:
        if kind == events.TRIAL_END:
            raise JournalError("database or disk is full")
        return append(self, kind, *arguments, **keywords)

    monkeypatch.setattr(JournalWriter, "append", full)
    with pytest.raises(JournalError, match="disk is full"):
        do_import(experiment(tmp_path), sqlite_store())
    assert not list(journals())


def test_without_tunes_state_the_results_tell(tmp_path: Path) -> None:
    folder = experiment(tmp_path, state=False)
    found = read_experiment(Place.at(folder))
    assert [(one.trial_id, one.trainable, one.status) for one in found.trials] == [
        ("ab_0", "train", "KILLED"),
        ("ab_1", "train", "KILLED"),
    ]


def test_half_a_line_and_half_a_state_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = experiment(tmp_path)
    state = folder / "experiment_state-2026.json"
    state.write_text(state.read_text()[:50])
    results = folder / "train_ab_0_x" / "result.json"
    results.write_text(results.read_text()[:-20])
    found = read_experiment(Place.at(folder))
    assert [one["training_iteration"] for one in found.trials[0].results()] == [1, 2]
    assert "line 3 is no JSON" in caplog.text
    assert "statuses are guessed" in caplog.text


@pytest.mark.mlflow
def test_what_cannot_be_imported_is_refused(tmp_path: Path) -> None:
    folder = experiment(tmp_path)
    with pytest.raises(ConfigurationError, match="there is no directory"):
        do_import(tmp_path / "nowhere", "sqlite:///x.db")
    with pytest.raises(ConfigurationError, match="cannot be reached"):
        do_import(folder, f"http://127.0.0.1:{free_port()}")
    shutil.rmtree(folder)
    folder.mkdir()
    with pytest.raises(ConfigurationError, match="is no Tune experiment"):
        do_import(folder, "sqlite:///x.db")
