"""Faults of the disk under the journal: F16 and F17."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from drl_ray_tracking import names
from drl_ray_tracking.tracking.courier_status import LOCK_FILE
from drl_ray_tracking.tracking.journal import journals, segments
from drl_ray_tracking.tracking.leftovers import sync_leftovers
from drl_ray_tracking.tracking.locks import is_locked
from tests.faults.conftest import Drive, the_courier, wait_until_delivered
from tests.faults.delivered import Store, assert_delivered
from tests.faults.given import Given
from tests.faults.proxy import Proxy
from tests.network import free_port
from tests.servers import Server
from tests.waiting import wait_until

pytestmark = [pytest.mark.faults, pytest.mark.mlflow]
_ROWS = 40  # of a segment here; the first three events are no results


def parent_of(store: Store) -> tuple[dict[str, str], dict[str, float]]:
    """Tags and latest metrics of the sweep's run."""
    (parent,) = [run for _, run in store.runs().values() if run.data.tags[names.TAG_ROLE] == names.ROLE_SWEEP]
    return parent.data.tags, parent.data.metrics


@pytest.mark.parametrize("until", [40, 60])
def test_f16_a_disk_that_is_full_under_the_journal(drive: Drive, store: Store, server: Server, until: int) -> None:
    driver = drive(server.address, results=60, full=(20, until, 100_000))
    given = driver.finish()
    wait_until_delivered()
    lost = sum(trial.lost for trial in given.trials.values())
    assert 0 < lost <= 2 * (until - 20)
    assert not given.delivered
    assert "tracking loses data, training goes on" in driver.said()
    assert f"{lost} events of this sweep are lost for good" in driver.said()
    assert_delivered(given, store)
    tags, metrics = parent_of(store)
    assert names.TAG_DEGRADED in tags
    assert metrics["tracker/lost_events"] == lost


def truncated(segment: Path) -> None:
    segment.write_bytes(segment.read_bytes()[: segment.stat().st_size // 2])


def foreign(segment: Path) -> None:
    segment.write_bytes(b"this is no database\n" * 1_000)


def overwritten(segment: Path) -> None:
    content = bytearray(segment.read_bytes())
    content[4096 * 2 : 4096 * 3] = b"\xff" * 4096
    segment.write_bytes(content)


def assert_salvaged(given: Given, store: Store, damaged: Path) -> None:
    """Fails unless exactly what was not whole in the damaged segment is missing, moved aside, counted and said."""
    (trial,) = given.trials.values()
    (trial_id,) = given.trials
    missing = trial.sure - store.points(store.run_of(trial_id))
    steps = {step for _, step, _ in missing}
    first = int(damaged.stem)
    assert steps, "the damage did not hit"
    assert steps <= {seq - 3 for seq in range(first, first + _ROWS)}, "more is lost than was damaged"
    assert Path(f"{damaged}.quarantined").exists()
    tags, metrics = parent_of(store)
    assert names.TAG_DEGRADED in tags
    assert metrics["tracker/lost_events"] == len(steps)
    trial.sure = Counter({point: number for point, number in trial.sure.items() if point[1] not in steps})
    assert_delivered(given, store)


@pytest.mark.parametrize("damage", [truncated, foreign, overwritten])
def test_f17_a_journal_that_was_damaged_after_its_driver_died(
    drive: Drive, store: Store, server: Server, damage: Callable[[Path], None]
) -> None:
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    given = drive(address, trials=("a",), segment_rows=_ROWS, results=200, drain_timeout_s=0.0).finish()
    (directory,) = journals()
    os.kill(the_courier().pid, signal.SIGKILL)
    wait_until(lambda: not is_locked(directory / LOCK_FILE), timeout_s=10, what="the courier is gone")
    damaged = segments(directory)[2]
    damage(damaged)
    said: list[str] = []
    with Proxy(server.port, port=port):
        sync_leftovers(said.append)
    assert " lost: the journal was damaged" in said[-1]
    assert_salvaged(given, store, damaged)


def test_f17_a_journal_that_is_damaged_while_its_driver_lives(drive: Drive, store: Store, server: Server) -> None:
    port = free_port()
    driver = drive(
        f"http://127.0.0.1:{port}",
        trials=("a",),
        segment_rows=_ROWS,
        results=200,
        pause_at=180,
        watch_every_s=0.2,
        drain_timeout_s=1.0,
    )
    driver.wait_for_results(179)
    (directory,) = journals()
    damaged = segments(directory)[2]
    foreign(damaged)
    with Proxy(server.port, port=port):
        wait_until(lambda: Path(f"{damaged}.quarantined").exists(), timeout_s=60, what="the driver repairs its journal")
        driver.go_on()
        given = driver.finish()
        wait_until(lambda: not is_locked(directory / LOCK_FILE), timeout_s=60, what="the courier has delivered")
    assert "events" in driver.said()
    assert "lost" in driver.said()
    assert_salvaged(given, store, damaged)
