"""The journal: one writer, events in order and without gaps, readable after any death of the writer."""

from __future__ import annotations

import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drl_ray_tracking.errors import ConfigurationError, JournalError
from drl_ray_tracking.tracking import journal
from drl_ray_tracking.tracking.journal import (
    JournalWriter,
    driver_is_alive,
    drop_delivered_segments,
    last_sequence,
    new_journal_directory,
    read_events,
    segments,
)
from drl_ray_tracking.tracking.locks import hold_lock, is_locked, release


@pytest.fixture
def directory(isolated_home: Path) -> Path:
    return new_journal_directory()


def written(directory: Path, count: int) -> JournalWriter:
    writer = JournalWriter(directory, clock=lambda: 12.5)
    for number in range(1, count + 1):
        assert writer.append("result", f"t{number % 2}", {"n": number}) == number
    return writer


def numbers(directory: Path, after: int = 0, limit: int = 10_000) -> list[int]:
    return [event.seq for event in read_events(directory, after=after, limit=limit)]


def test_events_come_back_as_they_were(directory: Path) -> None:
    writer = JournalWriter(directory, clock=lambda: 12.5)
    writer.append("result", "t1", {"metrics": {"Größe": 0.1}, "step": 3})
    (event,) = read_events(directory, after=0, limit=10)
    assert event == journal.Event(1, 12500, "result", "t1", {"metrics": {"Größe": 0.1}, "step": 3})
    writer.close()


@settings(max_examples=25, deadline=None)
@given(rows=st.integers(1, 7), count=st.integers(0, 30), after=st.integers(0, 35), limit=st.integers(1, 40))
def test_reading_is_the_same_however_segments_are_cut(
    tmp_path_factory: pytest.TempPathFactory, rows: int, count: int, after: int, limit: int
) -> None:
    directory = tmp_path_factory.mktemp("journal")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal, "SEGMENT_ROWS", rows)
        written(directory, count).close()
    assert numbers(directory, after, limit) == list(range(after + 1, count + 1))[:limit]
    assert last_sequence(directory) == count
    assert len(segments(directory)) == -(-count // rows)


def test_delivered_segments_go_the_first_and_the_newest_stay(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "SEGMENT_ROWS", 10)
    writer = written(directory, 45)
    assert drop_delivered_segments(directory, 29, keep_first=True) == 1
    assert numbers(directory) == [*range(1, 11), *range(21, 46)]
    assert drop_delivered_segments(directory, 45, keep_first=True) == 2
    assert numbers(directory, after=40) == list(range(41, 46))
    assert writer.append("result", "", {}) == 46
    writer.close()


def test_one_writer_only(directory: Path) -> None:
    writer = written(directory, 1)
    with pytest.raises(JournalError, match="one writer"):
        JournalWriter(directory)
    assert driver_is_alive(directory)
    writer.close()
    assert not driver_is_alive(directory)
    again = JournalWriter(directory)
    assert again.append("result", "", {}) == 2
    again.close()
    assert numbers(directory) == [1, 2]


def test_nothing_is_written_after_closing(directory: Path) -> None:
    writer = written(directory, 2)
    writer.close()
    writer.close()
    with pytest.raises(JournalError, match="closed"):
        writer.append("result", "", {})
    assert numbers(directory) == [1, 2]


@pytest.mark.parametrize("payload", [{"a": float("nan")}, {"a": object()}])
def test_what_is_no_json_leaves_no_gap(directory: Path, payload: dict[str, object]) -> None:
    writer = written(directory, 1)
    with pytest.raises(JournalError, match="JSON"):
        writer.append("result", "", payload)
    assert writer.append("result", "", {}) == 2
    writer.close()


def test_threads_share_a_writer(directory: Path) -> None:
    writer = JournalWriter(directory)

    def write() -> None:
        for _ in range(50):
            writer.append("result", "", {})

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert numbers(directory) == list(range(1, 201))
    writer.close()


def test_only_the_owner_reads_it(directory: Path) -> None:
    writer = written(directory, 1)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    for path in directory.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    writer.close()


def test_a_segment_still_being_made_has_no_events(directory: Path) -> None:
    (directory / "000000000001.journal").touch()
    assert numbers(directory) == []
    assert last_sequence(directory) == 0


def test_a_foreign_segment_is_an_error_that_says_so(directory: Path) -> None:
    (directory / "000000000001.journal").write_bytes(b"not a database, but long enough to be one" * 30)
    with pytest.raises(JournalError, match="cannot be read"):
        numbers(directory)


def test_another_schema_is_refused(directory: Path) -> None:
    written(directory, 1).close()
    connection = sqlite3.connect(segments(directory)[0])
    connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(JournalError, match="schema 99"):
        numbers(directory)


def test_what_a_killed_driver_wrote_is_there(directory: Path) -> None:
    code = (
        "import sys, os, signal; from pathlib import Path\n"
        "from drl_ray_tracking.tracking.journal import JournalWriter\n"
        "writer = JournalWriter(Path(sys.argv[1]))\n"
        "for n in range(100): writer.append('result', 't', {'n': n})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(directory)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not driver_is_alive(directory)
    assert numbers(directory) == list(range(1, 101))


def test_looking_at_a_lock_does_not_take_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not is_locked(path)
    assert not path.exists()
    held = hold_lock(path)
    assert held is not None
    assert is_locked(path)
    assert hold_lock(path) is None
    release(held)
    assert not is_locked(path)


def test_a_patient_taker_gets_a_lock_that_is_let_go(tmp_path: Path) -> None:
    held = hold_lock(tmp_path / "lock")
    assert held is not None
    letting_go = threading.Timer(0.1, release, [held])
    letting_go.start()
    taken = hold_lock(tmp_path / "lock", patience_s=10.0)
    assert taken is not None
    release(taken)
    letting_go.join()


def test_a_network_filesystem_is_refused(isolated_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "filesystem_type", lambda path: "nfs4")
    with pytest.raises(ConfigurationError, match="DRL_TRACK_HOME"):
        new_journal_directory()


def test_an_unwritable_home_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="DRL_TRACK_HOME"):
        new_journal_directory(tmp_path / "file")


def test_a_directory_that_is_gone_is_a_journal_error(directory: Path) -> None:
    writer = JournalWriter(directory)
    (directory / "driver.lock").unlink()
    directory.rmdir()
    with pytest.raises(JournalError, match="cannot write"):
        writer.append("result", "", {})
    writer.close()


def test_an_append_takes_a_fraction_of_a_millisecond_while_a_courier_reads(directory: Path) -> None:
    writer = JournalWriter(directory)
    payload = {"step": 1, "metrics": {f"train/some/metric_{n}": n / 7 for n in range(60)}}
    writer.append("result", "t", payload)
    done = threading.Event()

    def read() -> None:
        while not done.wait(0.02):
            read_events(directory, after=0, limit=100)

    reader = threading.Thread(target=read)
    reader.start()
    took = []
    for _ in range(1000):
        before = time.perf_counter()
        writer.append("result", "t", payload)
        took.append(time.perf_counter() - before)
    done.set()
    reader.join()
    writer.close()
    # The promise is 1 ms at the median for the whole hook; a shared machine gets some room here.
    assert sorted(took)[500] < 1e-3
