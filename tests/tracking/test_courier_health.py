"""What a courier says of its own health, and what waits for nothing once a sweep has ended."""

from __future__ import annotations

from typing import Any

from drl_ray_tracking import names
from drl_ray_tracking.tracking.courier import Courier
from drl_ray_tracking.tracking.journal import JournalWriter, new_journal_directory
from drl_ray_tracking.tracking.sink import MemorySink, SinkUnavailableError
from tests.tracking.journals import opening, result, sweep, sweep_end, trial, write
from tests.tracking.test_courier import Clock


class Down(MemorySink):
    """Takes no values while `down` is set."""

    down = False

    def log(self, run_id: str, **values: Any) -> None:
        if self.down:
            raise SinkUnavailableError("connection refused")
        super().log(run_id, **values)


def lags(sink: MemorySink) -> list[float]:
    (parent,) = [run for run in sink.runs.values() if run.tags.get(names.TAG_ROLE) == names.ROLE_SWEEP]
    return [one.value for one in sorted(parent.points, key=lambda one: one.step) if one.key == "tracker/lag_s"]


def test_the_lag_is_that_of_what_was_delivered_last() -> None:
    writer, clock, sink = JournalWriter(new_journal_directory()), Clock(), Down()
    courier = Courier(writer.directory, lambda opened: sink, clock=clock, sleep=clock.sleep)
    write(writer, [opening(), sweep(), trial("a"), trial("b")], int(clock.now * 1000) - 2_000)
    courier._step(True)
    write(writer, [result("a", 1), trial("c")], int(clock.now * 1000))
    sink.down = True
    for _ in range(3):
        clock.sleep(1000)
        try:
            courier._step(True)
        except SinkUnavailableError:
            continue
        raise AssertionError("a store that is down takes nothing")
    sink.down = False
    courier._step(True)
    clock.sleep(100)
    courier._step(True)
    assert [round(lag) for lag in lags(sink)] == [2, 3000, 0]
    writer.close()


def test_what_comes_after_the_end_of_a_sweep_waits_for_nothing() -> None:
    writer, clock, sink = JournalWriter(new_journal_directory()), Clock(), MemorySink()
    courier = Courier(writer.directory, lambda opened: sink, clock=clock, sleep=clock.sleep)
    write(writer, [opening(), sweep(), trial("a"), sweep_end()])
    courier._step(True)
    write(writer, [result("", 7)])
    courier._step(True)
    assert courier.progress.acked == writer.last_seq
    writer.close()
