"""Chaos: driver, courier and server are killed at random moments, and the assertion stays the same.

`CHAOS_KILLS` is how many are killed (50 is the long form), `CHAOS_SEED` another order of them.
"""

from __future__ import annotations

import os
import random
import signal
import time

import pytest

from drl_ray_tracking.tracking import courier_status
from drl_ray_tracking.tracking.courier_status import read_status
from drl_ray_tracking.tracking.journal import journals
from drl_ray_tracking.tracking.leftovers import sync_leftovers
from drl_ray_tracking.tracking.locks import is_locked
from tests.faults.conftest import Drive, Driver
from tests.faults.delivered import Store, assert_delivered
from tests.faults.proxy import Proxy
from tests.servers import Server
from tests.waiting import wait_until

pytestmark = [pytest.mark.faults, pytest.mark.mlflow]
KILLS = int(os.environ.get("CHAOS_KILLS", "6"))
SEED = int(os.environ.get("CHAOS_SEED", "1"))
_VICTIMS = ("driver", "courier", "server")


def living_couriers() -> list[int]:
    """The ids of the couriers that serve a journal now, the newest journal's last."""
    found = []
    for directory in journals():
        status = read_status(directory)
        if status is not None and is_locked(directory / courier_status.LOCK_FILE):
            found.append(status.pid)
    return found


def kill_a_courier(rng: random.Random) -> None:
    pid = rng.choice(wait_until(living_couriers, timeout_s=60, what="a courier lives"))
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # it had just come to its end by itself


@pytest.mark.timeout(600 + 60 * KILLS)
def test_nothing_is_lost_whatever_is_killed(drive: Drive, store: Store, server: Server, proxy: Proxy) -> None:
    rng = random.Random(SEED)
    victims = [*_VICTIMS, *(rng.choice(_VICTIMS) for _ in range(KILLS - len(_VICTIMS)))][:KILLS]

    def start() -> Driver:
        return drive(proxy.address, trials=("a", "b", "c"), results=0, pace_s=0.05, watch_every_s=0.2)

    driver = start()
    drivers = 1
    for victim in victims:
        wait_until(lambda: driver.given().drivers == drivers, timeout_s=60, what="the driver has started")  # noqa: B023
        # Some requests later: in the middle of opening a run, of a batch, of an end.
        asked = proxy.requests + rng.randint(0, 12)
        wait_until(lambda asked=asked: proxy.requests >= asked, timeout_s=90, what="delivery goes on")  # type: ignore[misc]
        if victim == "driver":
            driver.kill()
            driver = start()
            drivers += 1
        elif victim == "courier":
            kill_a_courier(rng)
        else:
            server.kill()
            server.start()
    driver.wait_for_results(1)
    driver.go_on()
    given = driver.finish()
    said: list[str] = []
    deadline = time.monotonic() + 120
    while not sync_leftovers(said.append):  # couriers that were killed after their drivers
        assert time.monotonic() < deadline, said[-1]
    assert_delivered(given, store)
