"""The driver's side of delivery where there is no room: results are lost and counted, endings are not."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drl_ray_tracking import names
from drl_ray_tracking.errors import ConfigurationError, JournalError
from drl_ray_tracking.tracking import courier_process, events, spool
from drl_ray_tracking.tracking.courier import Courier
from drl_ray_tracking.tracking.journal import JournalWriter, read_events
from drl_ray_tracking.tracking.sink import MemorySink
from drl_ray_tracking.tracking.spool import LIMIT_VARIABLE, Spool, journal_limit_mb
from tests.tracking.journals import checkpoint, opening, result, sweep, sweep_end, trial, trial_end
from tests.tracking.test_courier import Clock


@pytest.fixture
def one(isolated_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Spool]:
    monkeypatch.setattr(courier_process, "start", lambda directory, credentials: None)
    opened: Any = opening()[2]
    made = Spool.open(opened, credentials={})
    yield made
    made.abandon()


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    """A disk that is full while `full` is set."""
    state = {"full": False}
    append = JournalWriter.append

    def limited(
        self: JournalWriter, kind: str, trial: str, payload: Mapping[str, Any], *, time_ms: int | None = None
    ) -> int:
        if state["full"]:
            raise JournalError("database or disk is full")
        return append(self, kind, trial, payload, time_ms=time_ms)

    monkeypatch.setattr(JournalWriter, "append", limited)
    return state


def kinds(directory: Path) -> list[str]:
    return [event.kind for event in read_events(directory, after=0, limit=1000)]


def delivered(directory: Path) -> MemorySink:
    sink, clock = MemorySink(), Clock()
    Courier(directory, lambda opened: sink, clock=clock, sleep=clock.sleep).run()
    return sink


def test_a_full_disk_costs_results_and_is_said_once_there_is_room(
    one: Spool, disk: dict[str, bool], caplog: pytest.LogCaptureFixture
) -> None:
    for event in [sweep(), trial("a"), trial("b"), result("a", 1)]:
        assert one.append(*event)
    disk["full"] = True
    for event in [result("a", 2), result("b", 1), trial_end("b"), result("a", 3)]:
        assert not one.append(*event)
    assert one.lost == 3
    assert caplog.text.count("training goes on") == 1
    disk["full"] = False
    assert one.append(*result("a", 4))
    assert kinds(one.directory)[-3:] == [events.TRIAL_END, events.LOSS, events.RESULT]
    for event in [trial_end("a"), sweep_end()]:
        assert one.append(*event)
    assert not one.close(0.0)
    assert "3 events of this sweep are lost for good (database or disk is full)" in caplog.text
    sink = delivered(one.directory)
    parent, a, b = sink.runs.values()
    assert parent.tags[names.TAG_DEGRADED] == "3 events lost: database or disk is full"
    assert {point.value for point in parent.points if point.key == "tracker/lost_events"} == {3.0}
    assert [run.status for run in (parent, a, b)] == ["FINISHED"] * 3
    assert {point.step for point in a.points} == {1, 4}


def test_endings_are_written_when_the_sweep_closes(one: Spool, disk: dict[str, bool]) -> None:
    for event in [sweep(), trial("a")]:
        one.append(*event)
    disk["full"] = True
    for event in [trial_end("a", "FAILED"), sweep_end()]:
        assert not one.append(*event)
    disk["full"] = False
    one.close(0.0)
    assert [run.status for run in delivered(one.directory).runs.values()] == ["FINISHED", "FAILED"]


def test_a_trial_that_starts_again_on_a_full_disk_is_said_in_its_place(one: Spool, disk: dict[str, bool]) -> None:
    for event in [sweep(), trial("a"), result("a", 1), result("a", 2)]:
        one.append(*event)
    disk["full"] = True
    hparams: Any = (events.HPARAMS, "a", {"step": 1, "changed": {"lr": "0.9"}})
    for event in [trial("a", resumed_step=1), hparams, trial("b")]:
        assert not one.append(*event)
    disk["full"] = False
    for event in [result("a", 2), trial_end("b"), trial_end("a"), sweep_end()]:
        assert one.append(*event)
    assert one.lost == 0
    one.close(0.0)
    _, a, b = delivered(one.directory).runs.values()
    assert json.loads(a.tags[names.TAG_ATTEMPTS])[-1][-1] == 1, "the step it resumed from"
    assert (a.tags["hparam.lr"], b.status) == ("0.9", "FINISHED")


def test_a_sweep_that_begins_on_a_full_disk_is_delivered(one: Spool, disk: dict[str, bool]) -> None:
    disk["full"] = True
    assert not one.append(*sweep())
    disk["full"] = False
    for event in [trial("a"), trial_end("a"), sweep_end()]:
        assert one.append(*event)
    one.close(0.0)
    assert [run.status for run in delivered(one.directory).runs.values()] == ["FINISHED"] * 2


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("wrong", [{"score": float("nan")}, {"step": np.int64(5)}])
def test_an_event_that_is_not_json_is_lost_and_stops_nothing(
    one: Spool, disk: dict[str, bool], wrong: dict[str, Any], full: bool, caplog: pytest.LogCaptureFixture
) -> None:
    one.append(*sweep())
    disk["full"] = full
    assert not one.append(events.CHECKPOINT, "a", {**checkpoint("a", 1, "/x")[2], **wrong})
    disk["full"] = False
    for event in [trial("a"), result("a", 2), trial_end("a"), sweep_end()]:
        assert one.append(*event)
    assert one.lost == 1
    assert not one.close(0.0)
    assert "'checkpoint' event cannot be written as JSON" in caplog.text
    parent, a = delivered(one.directory).runs.values()
    assert (parent.status, a.status) == ("FINISHED", "FINISHED")
    assert parent.tags[names.TAG_DEGRADED].startswith("1 events lost: a 'checkpoint' event cannot be written as JSON")


def test_a_sweep_that_closes_on_a_full_disk_says_what_is_missing(
    one: Spool, disk: dict[str, bool], caplog: pytest.LogCaptureFixture
) -> None:
    one.append(*sweep())
    disk["full"] = True
    one.append(*sweep_end())
    assert not one.close(0.0)
    assert "1 events about how trials began and ended cannot be written down" in caplog.text


def test_a_journal_at_its_limit_leaves_results_out_until_some_are_delivered(
    one: Spool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    taken = {"bytes": 0}
    monkeypatch.setattr(spool, "size", lambda directory: taken["bytes"])
    monkeypatch.setattr(spool, "_LOOK_EVERY", 2)
    for event in [sweep(), trial("a"), result("a", 1), result("a", 2)]:
        assert one.append(*event)
    taken["bytes"] = 5_000_000_000
    assert not one.append(*result("a", 3))
    assert one.append(*trial("b")), "what a run is and how it ends is always written"
    assert not one.append(*result("a", 4))
    assert LIMIT_VARIABLE in caplog.text
    taken["bytes"] = 0
    assert one.append(*result("a", 5))
    assert one.lost == 2


def test_the_limit_comes_from_the_argument_then_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert journal_limit_mb(None) == 4096
    monkeypatch.setenv(LIMIT_VARIABLE, "512")
    assert journal_limit_mb(None) == 512
    assert journal_limit_mb(200) == 200


@pytest.mark.parametrize("wrong", ["much", "-1", "nan", "3"])
def test_a_limit_that_makes_no_sense_is_refused(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    monkeypatch.setenv(LIMIT_VARIABLE, wrong)
    with pytest.raises(ConfigurationError, match=LIMIT_VARIABLE):
        journal_limit_mb(None)
