"""A server that can be killed, a proxy before it, drivers as processes; and no process left behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from drl_ray_tracking.tracking import courier_status
from drl_ray_tracking.tracking.courier_status import CourierStatus, read_status
from drl_ray_tracking.tracking.journal import journals
from drl_ray_tracking.tracking.locks import is_locked
from tests.faults.delivered import Store
from tests.faults.driver import Plan
from tests.faults.given import Given, read_given
from tests.faults.proxy import Proxy
from tests.servers import Server
from tests.waiting import PATIENCE, wait_until


@dataclass
class Driver:
    """A driver process and what it leaves behind."""

    plan: Plan
    process: subprocess.Popen[str]
    log: Path

    def given(self) -> Given:
        """What its hooks have been given so far."""
        return read_given(self.plan.record)

    def wait_for_results(self, number: int) -> None:
        """Waits until every trial has had this many results."""

        def reached() -> bool:
            assert self.process.poll() is None, self.said()
            trials = self.given().trials.values()
            return len(trials) == len(self.plan.trials) and all(trial.results >= number for trial in trials)

        wait_until(reached, timeout_s=90, what=f"{number} results of each trial")

    def go_on(self) -> None:
        """Lets it pass its pause."""
        self.plan.gate.touch()

    def finish(self, timeout_s: float = 120.0) -> Given:
        """Waits until it has ended as it would have without any fault: every result of every trial."""
        code = self.process.wait(timeout=PATIENCE * timeout_s)
        assert code == 0, self.said()
        given = self.given()
        assert given.over
        assert len(given.trials) == len(self.plan.trials)
        reached = {trial.last_step for trial in given.trials.values()}
        assert len(reached) == 1, "training did not end as it would have"
        assert reached == {self.plan.results} or not self.plan.results
        assert given.slowest_hook_s < 1.0, "a hook waited for something"
        return given

    def send(self, number: int) -> None:
        """Sends it a signal."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """Ends it with SIGKILL."""
        self.process.kill()
        self.process.wait(timeout=60)

    def said(self) -> str:
        """What it wrote to standard output and error."""
        return self.log.read_text(errors="replace")


Drive = Callable[..., Driver]


@pytest.fixture(scope="session")
def _server(tmp_path_factory: pytest.TempPathFactory, _empty_database: Path) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("faults")
    shutil.copy(_empty_database, folder / "mlflow.db")
    one = Server(folder)
    try:
        one.start()
        yield one
    finally:
        one.kill()


@pytest.fixture
def server(_server: Server) -> Server:
    """The suite's MLflow server, running."""
    _server.start()
    return _server


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    """A proxy before the server; healthy until told otherwise."""
    with Proxy(server.port) as one:
        yield one


@pytest.fixture
def store(server: Server, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A view of the server past the proxy, and an experiment of the test's own."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    return Store(server.address, f"faults-{uuid.uuid4().hex[:8]}")


@pytest.fixture
def drive(tmp_path: Path, store: Store) -> Iterator[Drive]:
    """Starts drivers; ends at the end those that still run, and the couriers they left."""
    started: list[Driver] = []

    def start(uri: str, folder: str = "sweep", **changes: Any) -> Driver:
        home = tmp_path / folder
        home.mkdir(exist_ok=True)
        plan = replace(Plan(str(home), uri, store.experiment), **changes)
        log = home / f"driver{len(started)}.log"
        plan_file = home / f"plan{len(started)}.json"
        plan_file.write_text(plan.to_json())
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.driver", str(plan_file)],
                stdout=output,
                stderr=output,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(part for part in sys.path if part)},
                cwd=home,
                start_new_session=True,
                text=True,
            )
        started.append(Driver(plan, process, log))
        return started[-1]

    yield start
    for driver in started:
        if driver.process.poll() is None:
            driver.kill()
    for directory in journals():
        status = read_status(directory)
        if status is not None and is_locked(directory / courier_status.LOCK_FILE):
            os.kill(status.pid, signal.SIGKILL)


def the_courier() -> CourierStatus:
    """What the only courier says of itself, once it has said something."""

    def status() -> CourierStatus | None:
        found = list(journals())
        return read_status(found[0]) if len(found) == 1 else None

    return wait_until(status, timeout_s=60, what="the courier answers")  # type: ignore[no-any-return]


def wait_until_delivered(timeout_s: float = 90.0) -> None:
    """Waits until every journal is delivered, hence removed."""
    wait_until(lambda: not list(journals()), timeout_s=timeout_s, what="every journal is delivered and removed")
