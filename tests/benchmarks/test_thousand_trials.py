"""A sweep of a thousand trials at the driver: recorded results through the real callback, journal, courier and server.

What would hurt such a sweep grows with the number of its trials: the time of a hook, the memory of the driver or of
the courier, the queue. Nothing trains here; pictures are left out (some two seconds of CPU a trial, drawn at leisure).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest

from drl_ray_tracking import MLflowTrackingCallback
from drl_ray_tracking.tracking.spool import Spool
from tests.benchmarks.replay import recorded, result_at, trials

pytestmark = [pytest.mark.bench, pytest.mark.timeout(3600), pytest.mark.filterwarnings("ignore")]
TRIALS = int(os.environ.get("BENCH_TRIALS", "1000"))
RESULTS = 5  # of each trial
RATE = 20.0  # results a second: a hundred trials at once whose iterations take five seconds
WINDOW = 20  # trials whose hooks are taken together: those around the 10th, and the last
LOOKS = 5


class Clock:
    """Seconds that a hook took, by its name and the number of its trial."""

    def __init__(self) -> None:
        self._taken: dict[str, list[tuple[int, float]]] = {}

    def time(self, name: str, trial: int, hook: Callable[[], object]) -> None:
        started = time.perf_counter()
        hook()
        self._taken.setdefault(name, []).append((trial, time.perf_counter() - started))

    def line(self, name: str) -> str:
        early = self._median(name, 0, WINDOW)
        late = self._median(name, TRIALS - WINDOW, TRIALS)
        return f"{name:22} {early:9.3f} ms {late:9.3f} ms {late / early:8.2f}"

    def _median(self, name: str, first: int, last: int) -> float:
        return float(np.median([taken for trial, taken in self._taken[name] if first <= trial < last])) * 1e3


def memory_mb(pid: int) -> float:
    return float(psutil.Process(pid).memory_info().rss) / 1e6


def look(spool: Spool, number: int, started: float) -> str:
    status = spool.status()
    assert status is not None
    seconds = time.monotonic() - started
    return (
        f"{number:6} {seconds:7.0f} s {memory_mb(os.getpid()):10.0f} MB {memory_mb(status.pid):10.0f} MB "
        f"{spool.queued():8} {status.progress.points / seconds:10,.0f} {status.cpu_s:8.0f} s"
    )


def test_a_thousand_trials(ray_session: None, mlflow_server: str, tmp_path: Path) -> None:
    result, config = recorded()
    callback = MLflowTrackingCallback(
        mlflow_server, experiment_name="a thousand", drain_timeout_s=1800.0, pictures=False
    )
    made = trials(TRIALS, config, tmp_path)
    clock, looks = Clock(), []
    callback.setup()
    assert callback.spool is not None
    started = time.monotonic()
    for number, trial in enumerate(made):
        clock.time("log_trial_start", number, partial(callback.log_trial_start, trial))
        for iteration in range(1, RESULTS + 1):
            given = result_at(result, iteration)
            clock.time("log_trial_result", number, partial(callback.log_trial_result, iteration, trial, given))
        trial.status = "TERMINATED"
        clock.time("log_trial_end", number, partial(callback.log_trial_end, trial))
        clock.time("on_step_end", number, partial(callback.on_step_end, 0, made))
        clock.time("get_state", number, callback.get_state)
        if (number + 1) % max(1, TRIALS // LOOKS) == 0:
            looks.append(look(callback.spool, number + 1, started))
        # What a busy driver has to spare: the pace of the sweep, not that of this loop.
        time.sleep(max(0.0, started + (number + 1) * RESULTS / RATE - time.monotonic()))
    trained = time.monotonic() - started
    behind = callback.spool.queued()
    callback.on_experiment_end(made)
    drained = time.monotonic() - started - trained
    assert callback.delivered
    assert callback.courier_status is not None
    points = callback.courier_status.progress.points
    assert points >= TRIALS * RESULTS * len(callback.selection.select(result))

    print(f"\n{TRIALS} trials of {RESULTS} results, {RATE:.0f} results a second, {points:,} points")
    print(f"{'hook':22} {'around the 10th':>12} {'the last':>12} {'ratio':>8}   (promised <= 1.2)")
    for name in ("log_trial_start", "log_trial_result", "log_trial_end", "on_step_end", "get_state"):
        print(clock.line(name))
    print(f"{'trials':>6} {'after':>9} {'driver':>13} {'courier':>13} {'queued':>8} {'points/s':>10} {'CPU':>10}")
    for line in looks:
        print(line)
    print(f"{behind} events waited when the last trial ended; everything was in the store {drained:.0f} s later")
