"""Delivery where this machine fails, where an event cannot be understood, and where another courier is at work."""

from __future__ import annotations

import base64
import json
import pickle
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from drl_ray_tracking import names
from drl_ray_tracking.errors import JournalError
from drl_ray_tracking.tracking import events
from drl_ray_tracking.tracking.courier_process import carry
from drl_ray_tracking.tracking.delivery import Delivery
from drl_ray_tracking.tracking.journal import Event
from drl_ray_tracking.tracking.leftovers import sync_leftovers
from drl_ray_tracking.tracking.progress import Progress
from drl_ray_tracking.tracking.sink import MemorySink, SinkUnavailableError
from tests.tracking.journals import Written, numbered, opening, result, sweep, sweep_end, trial, trial_end
from tests.tracking.test_courier import left_behind


def nothing(*arguments: Any) -> None:
    return None


def run_of(sink: MemorySink, trial_id: str) -> Any:
    (found,) = [run for run in sink.runs.values() if run.tags.get(names.TAG_TRIAL_ID, "") == trial_id]
    return found


class Lock:
    """A sweep's lock that fails so often, and knows whether it is held."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.held = False

    @contextmanager
    def __call__(self, sweep_id: str) -> Iterator[None]:
        if self.failures:
            self.failures -= 1
            raise OSError(28, "No space left on device")
        assert not self.held, "a lock of this kind is not taken twice"
        self.held = True
        try:
            yield
        finally:
            self.held = False


@pytest.mark.parametrize("before", range(1, 6))
def test_a_lock_that_cannot_be_taken_now_costs_nothing(before: int) -> None:
    sink, lock = MemorySink(), Lock()
    delivery = Delivery(sink, Progress(), nothing, lock)
    journal = numbered([opening(), sweep(), trial("a"), result("a", 1), result("a", 2), trial_end("a"), sweep_end()])
    delivery.deliver(journal[:before])
    lock.failures = 1
    with pytest.raises(SinkUnavailableError, match="No space left"):
        delivery.deliver(journal[before:])
    delivery.deliver(journal[delivery.progress.acked :])
    assert delivery.progress.lost == 0
    assert (run_of(sink, "a").status, run_of(sink, "").status) == ("FINISHED", "FINISHED")
    assert {point.step for point in run_of(sink, "a").points} == {1, 2}


def test_open_runs_are_closed_where_a_lock_fails_at_first() -> None:
    sink, lock = MemorySink(), Lock()
    delivery = Delivery(sink, Progress(), nothing, lock)
    delivery.deliver(numbered([opening(), sweep(), trial("a")]))
    lock.failures = 1
    with pytest.raises(SinkUnavailableError):
        delivery.close_open_runs("KILLED", 9)
    delivery.close_open_runs("KILLED", 9)
    assert (run_of(sink, "a").status, run_of(sink, "").status) == ("KILLED", "KILLED")


def test_held_results_that_cannot_be_read_again_are_not_acknowledged() -> None:
    def recall(trial_id: str, first: int, last: int) -> Iterator[Event]:
        raise JournalError("too many open files")

    held: list[Written] = [(events.HELD, "a", {"step": 1, "metrics": {"loss": 1.0}})]
    delivery = Delivery(MemorySink(), Progress(), nothing, recall=recall)
    with pytest.raises(JournalError, match="too many open files"):
        delivery.deliver(numbered([opening(), sweep(), trial("a"), *held, (events.RELEASE, "a", {"upto": 4})]))
    assert delivery.progress.acked == 4
    assert delivery.progress.lost == 0


def unreadable(pool: str) -> Written:
    summary = base64.b64encode(pickle.dumps(object())).decode()[:-4] + "AAAA"
    return events.EPISODE, "a", {"split": "train", "step": 1, "pool": pool, "summary": summary}


@pytest.mark.parametrize("ends", [True, False])
def test_episodes_that_cannot_be_read_hold_up_no_ending(ends: bool) -> None:
    endings = [trial_end("a"), sweep_end()] if ends else []
    written = [opening(), sweep(), trial("a"), unreadable("from 0"), unreadable("from 1"), result("a", 1), *endings]
    journal = numbered(written)

    def recall(trial_id: str, first: int, last: int) -> list[Event]:
        return [event for event in journal if event.kind == events.EPISODE and first <= event.seq <= last]

    sink = MemorySink()
    delivery = Delivery(sink, Progress(), nothing, recall_episodes=recall)
    delivery.deliver(journal)
    if not ends:
        delivery.close_open_runs("KILLED", 9)
    assert delivery.progress.ended
    assert {run_of(sink, "a").status, run_of(sink, "").status} == {"FINISHED" if ends else "KILLED"}
    assert delivery.progress.lost == 2
    assert run_of(sink, "").tags[names.TAG_DEGRADED].startswith("2 events lost: episodes of a (train) cannot be read")


@pytest.mark.mlflow
def test_what_is_left_out_is_said_and_its_journal_stays(sqlite_store: Callable[[], str]) -> None:
    bad: Written = (events.RESULT, "a", {"step": 1, "metrics": 3})
    written = [opening(sqlite_store()), sweep(), trial("a"), bad, result("a", 1), trial_end("a"), sweep_end()]
    directory = left_behind(written)
    said: list[str] = []
    assert sync_leftovers(said.append)
    assert "7 events delivered, 1 lost" in said[-1]
    assert directory.exists()
    assert carry(directory), "it is no error to be asked again"


class Interrupted(MemorySink):
    """Lets something else happen between a look at a run's tags and what is written then, unless a lock is held."""

    def __init__(self, lock: Lock) -> None:
        super().__init__()
        self.lock = lock
        self.meanwhile: Callable[[], None] | None = None

    def read_tags(self, run_id: str) -> Mapping[str, str]:
        tags = super().read_tags(run_id)
        if self.meanwhile is not None and not self.lock.held:
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile()
        return tags


def changed(rate: str) -> Written:
    return events.HPARAMS, "a", {"step": 1, "changed": {"lr": rate}}


@pytest.fixture
def race() -> tuple[Interrupted, Delivery, Callable[[], None]]:
    """A store, the courier of a first driver, and what brings the courier of the second to open the same runs."""
    lock = Lock()
    sink = Interrupted(lock)
    old = Delivery(sink, Progress(), nothing, lock)
    new = Delivery(sink, Progress(), nothing, lock)
    old.deliver(numbered([opening(), sweep(epoch=1), trial("a")]))
    journal = numbered([opening(), sweep(epoch=2), trial("a"), changed("0.9")], 5_000_000)
    return sink, old, lambda: new.deliver(journal)


def test_no_run_is_ended_that_a_newer_driver_opens_meanwhile(
    race: tuple[Interrupted, Delivery, Callable[[], None]],
) -> None:
    sink, old, reopen = race
    sink.meanwhile = reopen
    old.close_open_runs("KILLED", 9)
    if sink.meanwhile is not None:
        sink.meanwhile()  # it had to wait for the lock
    assert (run_of(sink, "a").status, run_of(sink, "").status) == ("RUNNING", "RUNNING")


def test_parameters_of_a_newer_driver_stay(race: tuple[Interrupted, Delivery, Callable[[], None]]) -> None:
    sink, old, reopen = race
    reopen()
    old.deliver([Event(4, 1_000_004, *changed("0.1")), Event(5, 1_000_005, events.RESULT, "a", _tagged("old"))])
    assert run_of(sink, "a").tags["hparam.lr"] == "0.9"
    assert [one[1:] for one in _lineage(sink)] == [[1, "", ["lr"]], [1, "", ["lr"]]]
    assert sorted(point.value for point in run_of(sink, "a").points if point.key == "hparam/lr") == [0.1, 0.9]


def test_the_lock_is_held_from_the_look_to_what_is_written(
    race: tuple[Interrupted, Delivery, Callable[[], None]],
) -> None:
    sink, old, reopen = race
    sink.meanwhile = reopen
    old.deliver([Event(4, 1_000_004, *changed("0.1")), Event(5, 1_000_005, events.RESULT, "a", _tagged("old"))])
    assert sink.meanwhile is not None, "nobody could come in between"


def _tagged(mood: str) -> dict[str, Any]:
    return {"step": 1, "metrics": {}, "tags": {"mood": mood}}


def _lineage(sink: MemorySink) -> list[list[Any]]:
    found: list[list[Any]] = json.loads(run_of(sink, "a").tags[names.TAG_LINEAGE])
    return found
