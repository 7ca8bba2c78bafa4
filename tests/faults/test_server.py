"""Faults of the server and of the way to it: F1 to F5, F18 to F21, F23."""

from __future__ import annotations

import base64
import os
import random
import signal
import threading
from pathlib import Path

import pytest

from drl_ray_tracking.tracking.courier_status import RETRYING, read_status
from drl_ray_tracking.tracking.journal import journals
from drl_ray_tracking.tracking.leftovers import sync_leftovers
from drl_ray_tracking.tracking.locks import is_locked
from tests.faults import proxy as faults
from tests.faults.conftest import Drive, the_courier, wait_until_delivered
from tests.faults.delivered import Store, assert_delivered
from tests.faults.proxy import Proxy
from tests.network import free_port
from tests.servers import Server
from tests.waiting import wait_until

pytestmark = [pytest.mark.faults, pytest.mark.mlflow]


def test_f1_a_server_that_is_unreachable_at_start(drive: Drive, store: Store, server: Server) -> None:
    port = free_port()
    driver = drive(f"http://127.0.0.1:{port}", drain_timeout_s=1.0)
    given = driver.finish()
    assert not given.delivered
    assert "cannot be reached" in driver.said()
    assert "events wait in" in driver.said()
    assert not store.runs()
    with Proxy(server.port, port=port):
        wait_until_delivered()
    assert_delivered(given, store)


def test_f2_a_server_that_is_killed_and_started_again(drive: Drive, store: Store, server: Server) -> None:
    driver = drive(server.address, pause_at=11)
    driver.wait_for_results(10)
    wait_until(lambda: the_courier().progress.acked >= 15, timeout_s=60, what="the first values are delivered")
    server.kill()
    driver.go_on()
    driver.wait_for_results(20)
    wait_until(lambda: the_courier().phase == RETRYING, timeout_s=60, what="the courier notices")
    server.start()
    given = driver.finish()
    wait_until_delivered()
    assert_delivered(given, store)


@pytest.mark.parametrize("seed", [1, 2])
def test_f3_a_server_that_fails_three_requests_of_ten(drive: Drive, store: Store, proxy: Proxy, seed: int) -> None:
    proxy.fault = faults.failing(random.Random(seed), 0.3)
    driver = drive(proxy.address)
    given = driver.finish()
    wait_until_delivered()
    assert_delivered(given, store)


def test_f3_answers_that_are_cut_off(drive: Drive, store: Store, proxy: Proxy) -> None:
    proxy.fault = faults.cutting(0.15, random.Random(3))
    given = drive(proxy.address).finish()
    wait_until_delivered()
    assert_delivered(given, store)


def test_f4_a_server_that_accepts_and_never_answers(drive: Drive, store: Store, proxy: Proxy) -> None:
    driver = drive(proxy.address, pause_at=11, drain_timeout_s=1.0)
    driver.wait_for_results(10)
    wait_until(lambda: the_courier().progress.acked >= 15, timeout_s=60, what="the first values are delivered")
    healed = threading.Event()
    asked = proxy.requests
    proxy.fault = faults.hanging(healed)
    driver.go_on()
    given = driver.finish()
    assert not given.delivered
    wait_until(lambda: proxy.requests > asked, timeout_s=30, what="a request hangs")
    proxy.fault = faults.healthy
    healed.set()
    wait_until_delivered()
    assert_delivered(given, store)


def test_f5_a_server_that_takes_two_seconds_for_each_request(drive: Drive, store: Store, proxy: Proxy) -> None:
    proxy.fault = faults.slow(2.0)
    given = drive(proxy.address, trials=("a",)).finish()
    wait_until_delivered()
    assert given.delivered
    assert_delivered(given, store)


def test_f18_two_drivers_that_create_one_experiment_at_once(drive: Drive, store: Store, proxy: Proxy) -> None:
    creating = threading.Barrier(2, timeout=60)

    def together(request: faults.Request) -> faults.Answer | None:
        if request.path.endswith("experiments/create"):
            creating.wait()  # both have looked for the experiment, neither has found it
        return request.forward()

    proxy.fault = together
    drivers = [drive(proxy.address, folder=f"sweep{number}") for number in range(2)]
    givens = [driver.finish() for driver in drivers]
    wait_until_delivered()
    assert all(given.delivered for given in givens)
    assert_delivered(givens, store)


def test_f19_an_experiment_that_is_deleted_before_the_start(drive: Drive, store: Store, server: Server) -> None:
    store.client.delete_experiment(store.client.create_experiment(store.experiment))
    driver = drive(server.address)
    assert driver.process.wait(timeout=180) != 0
    assert "ConfigurationError" in driver.said()
    assert "is deleted. Restore it" in driver.said()
    wait_until_delivered()
    assert not store.runs()


def test_f19_an_experiment_that_is_deleted_while_the_sweep_runs(drive: Drive, store: Store, server: Server) -> None:
    driver = drive(server.address, pause_at=11)
    driver.wait_for_results(10)
    wait_until(lambda: the_courier().progress.acked >= 15, timeout_s=60, what="the first values are delivered")
    experiment = store.client.get_experiment_by_name(store.experiment)
    assert experiment is not None
    store.client.delete_experiment(experiment.experiment_id)
    driver.go_on()
    given = driver.finish()
    assert not given.delivered
    assert "events wait in" in driver.said()
    assert "is deleted. Restore it" in driver.said()
    (directory,) = journals()
    wait_until(lambda: not is_locked(directory / "courier.lock"), timeout_s=30, what="the courier has left")
    store.client.restore_experiment(experiment.experiment_id)
    said: list[str] = []
    assert sync_leftovers(said.append), said
    assert_delivered(given, store)


def test_f20_a_password_that_changes_is_read_again(
    drive: Drive, store: Store, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    file = tmp_path / ".mlflow" / "credentials"
    file.parent.mkdir()

    def change(password: str) -> None:
        file.write_text(f"[mlflow]\nmlflow_tracking_username = me\nmlflow_tracking_password = {password}\n")

    accepted = ["first"]
    proxy.fault = faults.authorized(lambda: f"Basic {base64.b64encode(f'me:{accepted[0]}'.encode()).decode()}")
    change("first")
    driver = drive(proxy.address, pause_at=11)
    driver.wait_for_results(10)
    wait_until(lambda: the_courier().progress.acked >= 15, timeout_s=60, what="the first values are delivered")
    accepted[0] = "second"
    driver.go_on()
    driver.wait_for_results(20)
    wait_until(lambda: the_courier().phase == RETRYING, timeout_s=60, what="the courier is turned away")
    change("second")
    given = driver.finish()
    wait_until_delivered()
    assert_delivered(given, store)


def test_f20_a_token_in_a_file_is_renewed_while_the_sweep_runs(
    drive: Drive, store: Store, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    file.write_text("first-token\n")
    monkeypatch.setenv("DRL_TRACK_TOKEN_FILE", str(file))
    accepted = ["first-token"]
    proxy.fault = faults.authorized(lambda: f"Bearer {accepted[0]}")
    driver = drive(proxy.address, pause_at=11)
    driver.wait_for_results(10)
    wait_until(lambda: the_courier().progress.acked >= 15, timeout_s=60, what="the first values are delivered")
    accepted[0] = "second-token"
    driver.go_on()
    driver.wait_for_results(20)
    wait_until(lambda: the_courier().phase == RETRYING, timeout_s=60, what="the courier is turned away")
    (directory,) = journals()
    assert not any(b"first-token" in path.read_bytes() for path in directory.rglob("*") if path.is_file())
    file.write_text("second-token\n")
    given = driver.finish()
    wait_until_delivered()
    assert_delivered(given, store)


def test_f20_a_token_that_expires(drive: Drive, store: Store, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    accepted = ["first-token"]
    proxy.fault = faults.authorized(lambda: f"Bearer {accepted[0]}")
    driver = drive(proxy.address, token="first-token", pause_at=11, drain_timeout_s=1.0)
    driver.wait_for_results(10)
    wait_until(lambda: the_courier().progress.acked >= 15, timeout_s=60, what="the first values are delivered")
    accepted[0] = "second-token"
    driver.go_on()
    given = driver.finish()
    assert not given.delivered
    assert "events wait in" in driver.said()
    (directory,) = journals()
    assert not any(b"first-token" in path.read_bytes() for path in directory.rglob("*") if path.is_file())
    # A process cannot be given another environment: its courier goes, `sync` comes with the new token.
    os.kill(the_courier().pid, signal.SIGKILL)
    wait_until(lambda: not is_locked(directory / "courier.lock"), timeout_s=10, what="the courier is gone")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "second-token")
    said: list[str] = []
    assert sync_leftovers(said.append), said
    monkeypatch.delenv("MLFLOW_TRACKING_TOKEN")
    assert_delivered(given, store)


def test_f21_an_upload_that_fails_half_way(drive: Drive, store: Store, proxy: Proxy, tmp_path: Path) -> None:
    files = tmp_path / "files"
    (files / "deep").mkdir(parents=True)
    (files / "large.bin").write_bytes(random.Random(0).randbytes(500_000))
    (files / "deep" / "small.txt").write_text("é")
    proxy.fault, cut = faults.uploads_cut(times=6)
    given = drive(proxy.address, local_path=str(files)).finish()
    wait_until_delivered()
    assert len(cut) == 6
    assert_delivered(given, store)
    for trial_id in given.trials:
        run = store.run_of(trial_id)
        fetched = Path(store.client.download_artifacts(run.info.run_id, "", str(tmp_path)))
        for path in (path for path in files.rglob("*") if path.is_file()):
            assert (fetched / path.relative_to(files)).read_bytes() == path.read_bytes()


def test_f23_a_run_that_is_deleted_while_the_sweep_runs(drive: Drive, store: Store, server: Server) -> None:
    driver = drive(server.address, trials=("a", "b", "c"), pause_at=11)
    driver.wait_for_results(10)
    wait_until(lambda: the_courier().progress.acked >= 20, timeout_s=60, what="the first values are delivered")
    store.client.delete_run(store.run_of("b").info.run_id)
    driver.go_on()
    given = driver.finish()
    assert not given.delivered
    assert "MLflow takes nothing more for 1 runs" in driver.said()
    (directory,) = journals()
    wait_until(lambda: not is_locked(directory / "courier.lock"), timeout_s=30, what="the courier has left")
    status = read_status(directory)
    assert status is not None
    assert set(status.progress.refused) == {"b"}
    assert_delivered(given, store, deleted={"b"})
