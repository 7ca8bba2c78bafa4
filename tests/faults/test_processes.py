"""Faults of the processes: driver, courier and node; F6 to F9 and F11."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator

import psutil
import pytest

from drl_ray_tracking import names
from drl_ray_tracking.home import home
from drl_ray_tracking.tracking.journal import journals
from drl_ray_tracking.tracking.locks import is_locked
from tests.faults.conftest import Drive, Driver, the_courier, wait_until_delivered
from tests.faults.delivered import Store, assert_delivered
from tests.servers import Server
from tests.waiting import wait_until

pytestmark = [pytest.mark.faults, pytest.mark.mlflow]
_DELIVERED = "the first values are delivered"


@pytest.fixture
def ray_address(ray_session: None) -> Iterator[str]:
    """The suite's Ray, for drivers in processes of their own."""
    import ray

    yield ray.get_runtime_context().gcs_address


@pytest.mark.ray
def test_f6_a_restore_while_the_killed_drivers_courier_still_drains(
    drive: Drive, store: Store, server: Server, ray_address: str
) -> None:
    first = drive(server.address, kind="tune", ray_address=ray_address, results=6, pause_at=4)
    first.wait_for_results(3)
    stale = the_courier()
    (old,) = journals()
    try:
        # In the middle of making a run it would keep the next courier waiting, lest there be two.
        wait_until(lambda: _stopped_between_runs(stale.pid), timeout_s=60, what="the courier is stopped")
        first.kill()
        second = drive(server.address, kind="restore", ray_address=ray_address, results=6)
        second.go_on()
        wait_until(
            lambda: any(run.data.tags.get(names.TAG_EPOCH) == "2" for _, run in store.runs().values()),
            timeout_s=90,
            what="the second driver has opened the sweep",
        )
        assert old.exists()
    finally:
        os.kill(stale.pid, signal.SIGCONT)
    given = second.finish()
    wait_until_delivered()
    assert given.drivers == 2
    assert_delivered(given, store)


def _stopped_between_runs(courier: int) -> bool:
    process = psutil.Process(courier)
    process.suspend()
    wait_until(lambda: process.status() == psutil.STATUS_STOPPED, timeout_s=10, what="it does not run")
    if any(is_locked(path) for path in (home() / "locks").glob("*.lock")):
        process.resume()
        return False
    return True


def _stopped(driver: Driver, number: int) -> None:
    driver.wait_for_results(3)
    driver.send(number)
    try:
        driver.process.wait(timeout=3.0)
    except subprocess.TimeoutExpired:
        driver.kill()


@pytest.mark.ray
def test_f7_sigint(drive: Drive, store: Store, server: Server, ray_address: str) -> None:
    driver = drive(server.address, kind="tune", ray_address=ray_address, results=6, pause_at=4)
    driver.wait_for_results(3)
    driver.send(signal.SIGINT)
    driver.process.wait(timeout=180)
    given = driver.given()
    assert given.over
    assert given.delivered
    wait_until_delivered()
    assert given.status == "KILLED"
    assert_delivered(given, store)


@pytest.mark.ray
def test_f8_sigterm_with_three_seconds_to_live(drive: Drive, store: Store, server: Server, ray_address: str) -> None:
    driver = drive(server.address, kind="tune", ray_address=ray_address, results=6, pause_at=4)
    _stopped(driver, signal.SIGTERM)
    wait_until_delivered()
    given = driver.given()
    assert given.status == "KILLED"
    assert_delivered(given, store)


def test_f9_a_courier_that_is_killed(drive: Drive, store: Store, server: Server) -> None:
    driver = drive(server.address, pause_at=11, watch_every_s=0.2)
    driver.wait_for_results(10)
    first = wait_until(lambda: (status := the_courier()).progress.acked >= 15 and status, timeout_s=60, what=_DELIVERED)
    os.kill(first.pid, signal.SIGKILL)
    driver.go_on()
    wait_until(lambda: the_courier().pid != first.pid, timeout_s=60, what="another courier")
    given = driver.finish()
    wait_until_delivered()
    assert given.delivered
    assert_delivered(given, store)


@pytest.mark.ray
def test_f11_a_node_that_is_killed(drive: Drive, store: Store, server: Server) -> None:
    driver = drive(server.address, kind="two_nodes", trials=("a",), results=6, pause_at=4)
    given = driver.finish(timeout_s=240)
    wait_until_delivered()
    assert_delivered(given, store)
    (trial_id,) = given.trials
    attempts = json.loads(store.run_of(trial_id).data.tags[names.TAG_ATTEMPTS])
    assert [number for number, *_ in attempts] == [1, 2]
