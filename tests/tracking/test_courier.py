"""The courier as a real process: it drains, outlives its driver, and delivers everything once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from drl_ray_tracking import names
from drl_ray_tracking.tracking import courier_process, courier_status, events
from drl_ray_tracking.tracking.courier import Courier
from drl_ray_tracking.tracking.courier_status import read_status
from drl_ray_tracking.tracking.journal import (
    JournalWriter,
    journals,
    last_sequence,
    new_journal_directory,
    segments,
)
from drl_ray_tracking.tracking.leftovers import sync_leftovers
from drl_ray_tracking.tracking.locks import is_locked
from drl_ray_tracking.tracking.sink import MemorySink, SinkUnavailableError
from drl_ray_tracking.tracking.spool import Spool
from tests.network import free_port
from tests.tracking.journals import Written, opening, result, sweep, sweep_end, trial, trial_end, write
from tests.waiting import wait_until

_DRIVER = """
import os, signal, sys
from drl_ray_tracking.tracking import events
from drl_ray_tracking.tracking.spool import Spool
from tests.tracking.journals import opening, sweep, trial, trial_end, result

spool = Spool.open(opening(sys.argv[1])[2], credentials={})
for event in [sweep(), trial("a"), trial("b"), trial_end("b"), *[result("a", step) for step in range(1, 301)]]:
    spool.append(*event)
os.kill(os.getpid(), getattr(signal, sys.argv[2]))
"""


@pytest.fixture(autouse=True)
def no_courier_left(isolated_home: Path) -> Iterator[None]:
    """Ends the couriers a failed test left behind, by the ids in their own journals."""
    yield
    for directory in journals():
        status = read_status(directory)
        if status is not None and is_locked(directory / courier_status.LOCK_FILE):
            os.kill(status.pid, signal.SIGKILL)


def runs_of(uri: str) -> dict[str, Any]:
    """Trial id, or '' for the parent -> MLflow run; fails where there are two of one."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("tests")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id])
    by_trial = {run.data.tags.get(names.TAG_TRIAL_ID, ""): run for run in found}
    assert len(by_trial) == len(found), "a run was made twice"
    return by_trial


def steps_of(uri: str, run: Any) -> list[int]:
    from mlflow.tracking import MlflowClient

    return [point.step for point in MlflowClient(uri).get_metric_history(run.info.run_id, "loss")]


def left_behind(written: list[Written]) -> Path:
    """A journal whose driver has gone."""
    directory = new_journal_directory()
    writer = JournalWriter(directory)
    write(writer, written)
    writer.close()
    return directory


@pytest.mark.mlflow
def test_a_sweep_is_delivered_and_its_journal_removed(sqlite_store: Callable[[], str]) -> None:
    uri = sqlite_store()
    location = str(Path(uri.removeprefix("sqlite:///")).parent / "mlartifacts")
    opened: Any = opening(uri, artifact_location=location)[2]
    spool = Spool.open(opened, credentials={})
    steps = range(1, 51)
    for event in [sweep(), trial("a", config={"lr": 1}), *[result("a", step) for step in steps], trial_end("a")]:
        assert spool.append(*event)
    spool.append(*sweep_end())
    assert spool.close(60.0)
    wait_until(lambda: not spool.directory.exists(), timeout_s=20, what="the delivered journal is removed")
    runs = runs_of(uri)
    assert {trial_id: run.info.status for trial_id, run in runs.items()} == {"": "FINISHED", "a": "FINISHED"}
    assert steps_of(uri, runs["a"]) == list(steps)
    assert (Path(location) / runs["a"].info.experiment_id).exists() or list(Path(location).rglob("config.json"))
    assert not list(Path.cwd().glob("mlruns"))


@pytest.mark.mlflow
@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGTERM])
def test_it_outlives_a_driver_that_is_killed(
    sqlite_store: Callable[[], str], isolated_home: Path, death: signal.Signals
) -> None:
    uri = sqlite_store()
    driver = subprocess.run([sys.executable, "-c", _DRIVER, uri, death.name], check=False)
    assert driver.returncode == -death
    wait_until(lambda: not list(journals()), timeout_s=60, what="the orphaned journal is delivered and removed")
    runs = runs_of(uri)
    assert {name: run.info.status for name, run in runs.items()} == {"": "KILLED", "a": "KILLED", "b": "FINISHED"}
    assert runs["a"].data.tags[names.TAG_END_REASON] == names.END_DRIVER_DIED
    assert runs[""].data.tags[names.TAG_HEARTBEAT].isdecimal()
    assert steps_of(uri, runs["a"]) == list(range(1, 301))


@pytest.mark.mlflow
def test_a_courier_that_is_killed_is_replaced_and_nothing_comes_twice(
    sqlite_store: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drl_ray_tracking.tracking.spool._WATCH_EVERY_S", 0.2)
    uri = sqlite_store()
    opened: Any = opening(uri)[2]
    spool = Spool.open(opened, credentials={})
    for event in [sweep(), trial("a"), *[result("a", step) for step in range(1, 1001)]]:
        spool.append(*event)
    first = wait_until(
        lambda: (status := spool.status()) and status.progress.acked > 1 and status,
        timeout_s=60,
        what="the courier delivers",
    )
    os.kill(first.pid, signal.SIGKILL)
    for event in [*[result("a", step) for step in range(1001, 1101)], trial_end("a"), sweep_end()]:
        spool.append(*event)
    wait_until(lambda: spool.status().pid != first.pid, timeout_s=60, what="another courier")  # type: ignore[union-attr]
    assert spool.close(60.0)
    runs = runs_of(uri)
    assert steps_of(uri, runs["a"]) == list(range(1, 1101))
    assert runs["a"].info.status == "FINISHED"


@pytest.mark.mlflow
def test_exactly_one_courier_serves_a_journal(sqlite_store: Callable[[], str]) -> None:
    opened: Any = opening(sqlite_store())[2]
    spool = Spool.open(opened, credentials={})
    first = wait_until(spool.status, timeout_s=30, what="the courier answers")
    courier_process.start(spool.directory)
    log = spool.directory / courier_status.LOG_FILE
    wait_until(lambda: "another courier serves" in log.read_text(), timeout_s=30, what="the second one leaves")
    assert spool.status().pid == first.pid  # type: ignore[union-attr]
    assert not courier_process.carry(spool.directory)
    spool.abandon()
    wait_until(lambda: not spool.directory.exists(), timeout_s=30, what="a journal without a sweep is removed")


@pytest.mark.mlflow
def test_what_an_unreachable_server_missed_is_delivered_later(
    mlflow_server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    written = [sweep("later"), trial("later-a"), result("later-a", 1), trial_end("later-a"), sweep_end()]
    directory = left_behind([opening(f"http://127.0.0.1:{free_port()}"), *written])
    monkeypatch.setattr("drl_ray_tracking.tracking.leftovers._PATIENCE_S", 0.0)
    said: list[str] = []
    cwd = Path.cwd()
    assert not sync_leftovers(said.append)
    assert "6 events still wait" in said[-1]
    assert last_sequence(directory) == 6
    back = left_behind([opening(mlflow_server), *written])
    for file in segments(back):  # the server is back under its address
        file.replace(directory / file.name)
    for file in back.iterdir():
        file.unlink()
    back.rmdir()
    assert sync_leftovers(said.append)
    assert "6 events delivered" in said[-1]
    assert not directory.exists()
    assert runs_of(mlflow_server)["later-a"].info.status == "FINISHED"
    assert Path.cwd() == cwd
    assert sync_leftovers(said.append)
    assert "nothing is waiting" in said[-1]


def test_sync_leaves_a_running_sweep_alone() -> None:
    writer = JournalWriter(new_journal_directory())
    said: list[str] = []
    assert sync_leftovers(said.append)
    assert "still running" in said[0]
    writer.close()


def test_sync_says_what_cannot_be_read_and_goes_on() -> None:
    broken = left_behind([opening()])
    segments(broken)[0].write_bytes(b"no database" * 500)
    left_behind([])
    said: list[str] = []
    assert not sync_leftovers(said.append)
    assert len(said) == 2
    assert any("cannot be read" in line for line in said)


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class DownSink(MemorySink):
    """Out of reach until a moment."""

    def __init__(self, clock: Clock, up_at: float) -> None:
        super().__init__()
        self.clock, self.up_at = clock, up_at
        self.tries: list[float] = []

    def open_experiment(self, name: str | None, experiment_id: str | None, artifact_location: str | None) -> str:
        if self.clock.now < self.up_at:
            self.tries.append(self.clock.now)
            raise SinkUnavailableError("connection refused")
        return super().open_experiment(name, experiment_id, artifact_location)


SHORT: list[Written] = [opening(), sweep(), trial("a"), result("a", 1), trial_end("a"), sweep_end()]


def test_it_backs_off_and_recovers() -> None:
    clock = Clock()
    sink = DownSink(clock, up_at=1_300.0)
    directory = left_behind(SHORT)
    assert Courier(directory, lambda opened: sink, clock=clock, sleep=clock.sleep).run()
    waits = [later - earlier for earlier, later in zip(sink.tries, sink.tries[1:], strict=False)]
    assert waits[0] <= 1.0
    assert all(15.0 <= wait <= 30.0 for wait in waits[6:]), waits
    assert read_status(directory).retries == len(sink.tries)  # type: ignore[union-attr]


def test_it_gives_up_in_bounded_time_once_the_driver_is_gone() -> None:
    clock = Clock()
    directory = left_behind(SHORT)
    sink = DownSink(clock, up_at=1e9)
    assert not Courier(directory, lambda opened: sink, clock=clock, sleep=clock.sleep, orphan_limit_s=900).run()
    assert 900 <= clock.now - 1_000 <= 960
    status = read_status(directory)
    assert status is not None
    assert "connection refused" in status.message
    assert last_sequence(directory) == 6


def test_a_hiccup_long_after_the_driver_died_is_no_reason_to_give_up() -> None:
    class Hiccup(MemorySink):
        failed = False

        def set_status(self, run_id: str, status: str, end_ms: int) -> None:
            if not self.failed:
                self.failed = True
                raise SinkUnavailableError("one hiccup")
            super().set_status(run_id, status, end_ms)

    clock = Clock()
    sink = Hiccup()
    one = Courier(left_behind(SHORT), lambda opened: sink, clock=clock, sleep=clock.sleep, orphan_limit_s=10.0)
    clock.now += 5_000
    assert one.run()
    assert sink.failed


def test_a_broken_artifact_store_delays_no_value_and_is_given_up_in_the_end() -> None:
    class NoFiles(MemorySink):
        away = True

        def log_text(self, run_id: str, text: str, artifact_file: str) -> None:
            if self.away:
                raise SinkUnavailableError("the artifact store is away")
            super().log_text(run_id, text, artifact_file)

    clock = Clock()
    sink = NoFiles()
    written = [opening(), sweep(diff="+x"), trial("a", config={}), result("a", 1), trial_end("a"), sweep_end()]
    directory = left_behind(written)
    assert not Courier(directory, lambda opened: sink, clock=clock, sleep=clock.sleep, orphan_limit_s=60.0).run()
    assert [run.status for run in sink.runs.values()] == ["FINISHED", "FINISHED"]
    status = read_status(directory)
    assert status is not None
    assert status.progress.uploads
    assert "gave up on 2 uploads" in status.message
    sink.away = False
    assert courier_finishes(directory, sink, clock)
    trial_files = {names.CONFIG_ARTIFACT, names.HISTORIES_ARTIFACT}
    assert [set(run.artifacts) for run in sink.runs.values()] == [{names.DIFF_ARTIFACT}, trial_files]


def courier_finishes(directory: Path, sink: MemorySink, clock: Clock) -> bool:
    return Courier(directory, lambda opened: sink, clock=clock, sleep=clock.sleep).run()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"phase": 1}'])
def test_a_progress_file_that_a_power_cut_broke_means_once_more(content: str) -> None:
    directory = left_behind(SHORT)
    (directory / courier_status.PROGRESS_FILE).write_text(content)
    sink = MemorySink()
    assert courier_finishes(directory, sink, Clock())
    assert [run.status for run in sink.runs.values()] == ["FINISHED", "FINISHED"]


@pytest.mark.parametrize("written", [[], [opening()]])
def test_a_journal_without_a_sweep_ends_at_once(written: list[Written]) -> None:
    clock = Clock()
    assert courier_finishes(left_behind(written), DownSink(clock, up_at=1e9), clock)


def test_events_are_dropped_only_when_progress_is_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drl_ray_tracking.tracking.journal.SEGMENT_ROWS", 5)
    written = [opening(), sweep(), trial("a"), *[result("a", step) for step in range(1, 31)], trial_end("a")]
    directory = left_behind([*written, sweep_end()])
    count = len(segments(directory))
    monkeypatch.setattr(Courier, "_say", lambda self, phase, message="": False)
    assert courier_finishes(directory, MemorySink(), Clock())
    assert len(segments(directory)) == count
    monkeypatch.undo()


def test_the_opening_event_names_no_credential() -> None:
    assert not {key for key in events.Open.__annotations__ if "token" in key or "password" in key or "cred" in key}


def test_sync_repairs_a_damaged_journal_and_says_what_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    sink = MemorySink()
    monkeypatch.setattr(courier_process, "_mlflow_sink", lambda opened: sink)
    values = {f"m{number}": 1.0 for number in range(40)}
    directory = left_behind([opening(), sweep(), trial("a"), *[result("a", step, **values) for step in range(1, 301)]])
    (path,) = segments(directory)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    said: list[str] = []
    assert sync_leftovers(said.append)
    assert "the journal was damaged" in said[0]
    assert str(directory) in said[0]
    assert len({point.step for run in sink.runs.values() for point in run.points}) > 50
    assert list(directory.glob("*.quarantined"))


def test_while_trials_train_pictures_are_drawn_now_and_then_and_all_of_them_at_the_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    drawn: list[int] = []

    class Painter:
        """Draws nothing, at once."""

        def __init__(self, directory: Path) -> None:
            (tmp_path / "empty").mkdir()

        def place(self) -> Path:
            folder = tmp_path / f"material{len(drawn)}"
            folder.mkdir()
            return folder

        def start(self) -> None:
            drawn.append(round(now))

        def drawn(self) -> Path:
            return tmp_path / "empty"

    monkeypatch.setattr("drl_ray_tracking.tracking.courier.PaintingProcess", Painter)
    directory = new_journal_directory()
    writer = JournalWriter(directory)
    started = [trial(name) for name in "abcd"]
    write(writer, [opening(), sweep(pictures=True), *started, *[trial_end(name) for name in "abcd"]], start_ms=0)
    now = 0.0
    one = Courier(directory, lambda opened: MemorySink(), clock=lambda: now)
    for moment in range(0, 620, 10):
        now = float(moment)
        for _ in range(8):
            one._step(alive=True)
    assert drawn == [260, 510], "one in 250 s, whatever waits"
    write(writer, [sweep_end()], start_ms=700_000)
    for _ in range(8):
        one._step(alive=True)
    assert drawn == [260, 510, 610, 610]
    assert one._finished()
    writer.close()
