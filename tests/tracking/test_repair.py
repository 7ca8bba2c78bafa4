"""A damaged journal: what is whole is delivered, the rest is moved aside, counted and said."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drl_ray_tracking import names
from drl_ray_tracking.errors import JournalError
from drl_ray_tracking.tracking import courier_process, courier_status, events, journal
from drl_ray_tracking.tracking.courier import Courier
from drl_ray_tracking.tracking.courier_process import carry
from drl_ray_tracking.tracking.courier_status import read_status
from drl_ray_tracking.tracking.journal import (
    DamagedJournalError,
    JournalWriter,
    last_sequence,
    new_journal_directory,
    read_events,
    segments,
)
from drl_ray_tracking.tracking.repair import mend, quarantined, repair_orphan
from drl_ray_tracking.tracking.sink import MemorySink
from drl_ray_tracking.tracking.spool import Spool
from tests.tracking.journals import opening, result, sweep, sweep_end, trial, trial_end, write
from tests.tracking.test_courier import Clock
from tests.waiting import wait_until

PADDING = {f"metric/{number}": float(number) for number in range(40)}


def journal_of(count: int, *, ended: bool = False) -> Path:
    """A journal of OPEN, SWEEP, TRIAL and so many results, of a driver that is gone."""
    directory = new_journal_directory()
    ending = [trial_end("a"), sweep_end()] if ended else []
    with closing(JournalWriter(directory)) as writer:
        write(writer, [opening(), sweep(), trial("a"), *[result("a", n, **PADDING) for n in range(1, count + 1)]])
        write(writer, ending)
    return directory


def numbers(directory: Path) -> list[int]:
    return [event.seq for event in read_events(directory, after=0, limit=100_000)]


def truncate(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def test_a_truncated_segment_gives_what_is_whole(isolated_home: Path) -> None:
    directory = journal_of(300)
    (damaged,) = segments(directory)
    truncate(damaged, 0.6)
    with pytest.raises(DamagedJournalError):
        numbers(directory)
    damage = repair_orphan(directory, delivered=0)
    assert damage is not None
    assert damage.files == (f"{damaged.name}.quarantined",)
    assert [path.name for path in quarantined(directory)] == list(damage.files)
    *whole, loss = read_events(directory, after=0, limit=1000)
    assert len(whole) > 100
    assert [event.seq for event in whole] == list(range(1, len(whole) + 1))
    assert whole[10].payload == {"step": 8, "metrics": PADDING}
    assert loss.kind == events.LOSS
    assert "whatever followed" in loss.payload["reason"], "how far the last segment went is not known"
    assert repair_orphan(directory, delivered=0) is None, "there is nothing more to repair"


@settings(max_examples=15, deadline=None)
@given(share=st.floats(0.0, 0.99), middle=st.booleans(), delivered=st.integers(0, 60))
def test_every_event_is_whole_lost_or_was_delivered(
    tmp_path_factory: pytest.TempPathFactory, share: float, middle: bool, delivered: int
) -> None:
    """Wherever a segment that is not the last is damaged, what is left and what is counted make up all of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DRL_TRACK_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setattr(journal, "SEGMENT_ROWS", 40)
        directory = journal_of(97)
    path = segments(directory)[1]
    content = path.read_bytes()
    cut = int(len(content) * share)
    path.write_bytes(content[:cut] + b"\xff" * 3000 + content[cut + 3000 :] if middle else content[:cut])
    damage = mend(directory, delivered, 100)
    kept = numbers(directory)
    missing = set(range(1, 101)) - set(kept)
    assert missing <= set(range(41, 81))
    assert (damage.lost if damage else 0) == len([seq for seq in missing if seq > delivered])
    assert kept == sorted(kept)


@pytest.mark.parametrize("content", [b"", b"not a database, but long enough to be one" * 300])
def test_a_journal_of_which_nothing_is_left_is_kept_and_said(isolated_home: Path, content: bytes) -> None:
    directory = journal_of(3)
    segments(directory)[0].write_bytes(content)
    if not content:
        assert repair_orphan(directory, 0) is None, "a file still being made looks like this"
        return
    for _ in range(2):
        with pytest.raises(JournalError, match="nothing whole was left"):
            carry(directory)
    assert quarantined(directory)


def test_a_foreign_database_is_moved_aside(isolated_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "SEGMENT_ROWS", 10)
    directory = journal_of(25)
    foreign = segments(directory)[1]
    foreign.unlink()
    with closing(sqlite3.connect(foreign)) as connection:
        connection.execute("CREATE TABLE strangers (name TEXT)")
        connection.execute(f"PRAGMA user_version={journal.SCHEMA_VERSION}")
    damage = repair_orphan(directory, delivered=12)
    assert damage is not None
    assert (damage.lost, damage.open_ended) == (8, False)
    assert numbers(directory) == [*range(1, 11), *range(21, 30)]


def test_another_version_is_not_damage(isolated_home: Path) -> None:
    directory = journal_of(3)
    with closing(sqlite3.connect(segments(directory)[0])) as connection:
        connection.execute("PRAGMA user_version=99")
    assert repair_orphan(directory, 0) is None


def test_a_repair_that_was_killed_between_its_moves_is_finished(isolated_home: Path) -> None:
    directory = journal_of(3)
    (path,) = segments(directory)
    path.replace(path.with_name(f"{path.name}.salvaged"))
    assert mend(directory, 0, None) is None
    assert numbers(directory) == list(range(1, 7))


def courier_over(directory: Path, sink: MemorySink) -> Courier:
    clock = Clock()
    return Courier(directory, lambda opened: sink, clock=clock, sleep=clock.sleep)


def test_the_courier_of_a_dead_driver_delivers_what_is_whole(isolated_home: Path) -> None:
    directory = journal_of(300)
    truncate(segments(directory)[0], 0.6)
    sink = MemorySink()
    assert courier_over(directory, sink).run()
    parent, child = sink.runs.values()
    steps = {point.step for point in child.points}
    assert steps == set(range(1, len(steps) + 1))
    assert len(steps) > 100
    assert "journal damaged" in parent.tags[names.TAG_DEGRADED]
    assert {parent.status, child.status} == {"KILLED"}
    assert child.tags[names.TAG_END_REASON] == names.END_DRIVER_DIED


def test_the_first_event_may_be_lost_once_it_was_delivered(
    isolated_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "SEGMENT_ROWS", 10)
    directory = journal_of(25, ended=True)
    sink = MemorySink()
    with monkeypatch.context() as failing:
        failing.setattr(Courier, "_finished", lambda self: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            courier_over(directory, sink).run()
    segments(directory)[0].write_bytes(b"rubbish " * 1000)
    assert courier_over(directory, sink).run()
    assert [run.status for run in sink.runs.values()] == ["FINISHED", "FINISHED"]


def test_a_journal_whose_store_is_not_known_says_so(isolated_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "SEGMENT_ROWS", 10)
    directory = journal_of(25)
    segments(directory)[0].write_bytes(b"rubbish " * 1000)
    with pytest.raises(JournalError, match="names its store is lost"):
        carry(directory)
    assert last_sequence(directory) > 20


@pytest.fixture
def live(isolated_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Spool]:
    monkeypatch.setattr(courier_process, "start", lambda directory, credentials: None)
    spool = Spool.open(opening()[2], credentials={})  # type: ignore[arg-type]
    yield spool
    spool.abandon()


def test_a_living_driver_repairs_its_own_journal(
    live: Spool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The courier only says what it found: while the driver lives, nobody else writes."""
    for event in [sweep(), trial("a"), *[result("a", step, **PADDING) for step in range(1, 301)]]:
        assert live.append(*event)
    (path,) = segments(live.directory)
    live._writer.repair(lambda last: None)  # checkpoints the log into the file
    truncate(path, 0.6)
    sink = MemorySink()
    one = courier_over(live.directory, sink)
    said: list[str] = []

    def stop_after_a_look(seconds: float) -> None:
        said.append(read_status(live.directory).phase)  # type: ignore[union-attr]
        raise InterruptedError

    monkeypatch.setattr(one, "_sleep", stop_after_a_look)
    with pytest.raises(InterruptedError):
        one.run()
    assert said == [courier_status.DAMAGED]
    assert not quarantined(live.directory)
    live._mend_quietly()
    assert quarantined(live.directory)
    for event in [result("a", 301), trial_end("a"), sweep_end()]:
        assert live.append(*event)
    monkeypatch.setattr("drl_ray_tracking.tracking.spool._HOPELESS_RETRIES", 0)
    assert not live.close(0.0)
    assert "lost for good" in caplog.text
    assert names.TAG_DEGRADED in caplog.text
    assert courier_over(live.directory, sink).run()
    parent, child = sink.runs.values()
    lost = 301 - len({point.step for point in child.points})
    assert parent.tags[names.TAG_DEGRADED].startswith(f"{lost} events lost: journal damaged")
    assert (parent.status, child.status) == ("FINISHED", "FINISHED")


def test_the_watchdog_sees_what_the_courier_says(live: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drl_ray_tracking.tracking.spool._WATCH_EVERY_S", 0.05)
    for event in [sweep(), *[result("a", step, **PADDING) for step in range(1, 301)]]:
        live.append(*event)
    live._writer.repair(lambda last: None)
    truncate(segments(live.directory)[0], 0.6)
    courier_over(live.directory, MemorySink())._say(courier_status.DAMAGED)
    spool = Spool(live._writer, {})
    spool._watchdog.start()
    wait_until(lambda: quarantined(live.directory), timeout_s=20, what="the driver repairs")
    spool._closing.set()
    spool._watchdog.join()
