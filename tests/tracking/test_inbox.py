"""What waits for more and what does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from drl_ray_tracking.tracking.inbox import LINGER_S, Inbox
from drl_ray_tracking.tracking.journal import JournalWriter
from tests.tracking.journals import result, sweep, trial, trial_end, write


class Clock:
    def __init__(self) -> None:
        self.now = 1e9

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[JournalWriter]:
    made = JournalWriter(tmp_path)
    write(made, [sweep(), trial("a"), trial("b")])
    yield made
    made.close()


@pytest.fixture
def inbox(writer: JournalWriter, clock: Clock) -> Inbox:
    return Inbox(writer.directory, at_most=6, clock=clock)


def due(inbox: Inbox, after: int = 3, *, more_may_come: bool = True) -> list[int]:
    return [event.seq for event in inbox.due(after, more_may_come=more_may_come)]


def test_what_is_no_result_is_due_at_once(inbox: Inbox) -> None:
    assert due(inbox, 0) == [1, 2, 3]


def test_results_wait_for_more(inbox: Inbox, writer: JournalWriter, clock: Clock) -> None:
    write(writer, [result("a", 1)])
    assert due(inbox) == []
    clock.now += LINGER_S * 0.6
    write(writer, [result("b", 1)])
    assert due(inbox) == []
    clock.now += LINGER_S * 0.6
    write(writer, [result("a", 2)])
    assert due(inbox) == [4, 5, 6]
    assert due(inbox, 6) == []


def test_results_go_with_what_is_due(inbox: Inbox, writer: JournalWriter) -> None:
    write(writer, [result("a", 1)])
    assert due(inbox) == []
    write(writer, [result("a", 2), trial_end("a")])
    assert due(inbox) == [4, 5, 6]


def test_nothing_waits_for_a_driver_that_is_gone(inbox: Inbox, writer: JournalWriter) -> None:
    write(writer, [result("a", 1)])
    assert due(inbox) == []
    assert due(inbox, more_may_come=False) == [4]


def test_a_full_batch_waits_for_nothing(inbox: Inbox, writer: JournalWriter) -> None:
    write(writer, [result("a", step) for step in range(1, 9)])
    assert due(inbox) == [4, 5, 6, 7, 8, 9]
    assert due(inbox, 9) == []


def test_what_a_failed_delivery_has_left_is_due_again(inbox: Inbox, writer: JournalWriter, clock: Clock) -> None:
    write(writer, [result("a", 1), result("b", 1)])
    assert due(inbox) == []
    clock.now += LINGER_S
    assert due(inbox) == [4, 5]
    assert due(inbox) == [4, 5]  # nothing of it has arrived
    assert due(inbox, 4) == [5]  # half of it
    write(writer, [result("a", 2)])
    assert due(inbox, 5) == []


def test_a_clock_that_is_set_back_holds_nothing_up(inbox: Inbox, writer: JournalWriter, clock: Clock) -> None:
    write(writer, [result("a", 1)])
    assert due(inbox) == []
    clock.now -= 3600
    assert due(inbox) == [4]
