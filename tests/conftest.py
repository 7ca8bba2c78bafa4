"""Fixtures that the suites share: a home of the test's own, MLflow stores and servers, one small Ray."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests.network import free_port

# A developer's run looks for new examples; CI's repeats the same ones, so that a red run is the change's doing.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")

_CREDENTIALS = ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID", "MLFLOW_TRACKING_TOKEN")


def wait_until(condition: Callable[[], Any], *, timeout_s: float, what: str) -> Any:
    """Polls until a condition holds and returns what it returned; fails with `what` after the deadline."""
    deadline = time.monotonic() + timeout_s
    while True:
        outcome = condition()
        if outcome:
            return outcome
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.05)


@pytest.fixture(autouse=True)
def isolated_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Gives every test a journal home of its own, and no MLflow settings of the developer's."""
    for name in _CREDENTIALS:
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "drl_home"
    monkeypatch.setenv("DRL_TRACK_HOME", str(home))
    return home


@pytest.fixture(scope="session")
def _empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("empty-store")
    # In another process: the engine it leaves open would keep a connection until this one ends.
    make = "from mlflow.tracking import MlflowClient; MlflowClient('sqlite:///mlflow.db').search_experiments()"
    subprocess.run([sys.executable, "-c", make], cwd=folder, check=True, capture_output=True)
    return folder / "mlflow.db"


@pytest.fixture
def sqlite_store(tmp_path: Path, _empty_database: Path) -> Callable[[], str]:
    """Makes SQLite stores of the test's own by copying an empty one: creating one takes seconds."""

    def make() -> str:
        folder = tmp_path / f"store{len(list(tmp_path.glob('store*')))}"
        folder.mkdir()
        shutil.copy(_empty_database, folder / "mlflow.db")
        return f"sqlite:///{folder}/mlflow.db"

    return make


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory, _empty_database: Path) -> Iterator[str]:
    """The address of a real MLflow server over SQLite; tests keep apart by experiment names of their own."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(_empty_database, folder / "mlflow.db")
    port = free_port()
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{folder}/mlflow.db",
        "--serve-artifacts", "--artifacts-destination", str(folder / "artifacts"),
    ]  # fmt: skip
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, start_new_session=True)
    address = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        assert server.poll() is None, (folder / "server.log").read_text()[-2000:]
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=2) as reply:
                return bool(reply.status == 200)
        except OSError:
            return False

    try:
        wait_until(answers, timeout_s=90, what="the MLflow server answers")
        yield address
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(timeout=10)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait(timeout=10)


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """A Ray of two CPUs on this machine, started once and shut down at the end."""
    import ray

    # "local": never somebody else's Ray that happens to run on this machine.
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()
