"""Fixtures that the suites share: a home of the test's own, MLflow stores and servers, one small Ray."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.servers import Server, running, s3_server

# A developer's run looks for new examples; CI's repeats the same ones, so that a red run is the change's doing.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")

_CREDENTIALS = ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID", "MLFLOW_TRACKING_TOKEN")


@pytest.fixture(autouse=True)
def isolated_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Gives every test a journal home of its own, and no MLflow settings of the developer's."""
    for name in _CREDENTIALS:
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "drl_home"
    monkeypatch.setenv("DRL_TRACK_HOME", str(home))
    return home


@pytest.fixture(autouse=True)
def _patient_delivery(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a sweep's end waits for delivery, it waits as long as a machine that many share may need."""
    if request.node.get_closest_marker("ray") is not None:
        from drl_ray_tracking import MLflowTrackingCallback

        defaults = MLflowTrackingCallback.__init__.__kwdefaults__
        monkeypatch.setitem(defaults, "drain_timeout_s", 10 * defaults["drain_timeout_s"])


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
    with running(Server(folder)) as server:
        yield server.address


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """An S3-compatible server with a bucket `sweeps`; yields host:port."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-nobody-may-write-down")
    with s3_server(tmp_path, "sweeps") as address:
        yield address


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """A Ray of two CPUs on this machine, started once and shut down at the end."""
    import ray

    # "local": never somebody else's Ray that happens to run on this machine.
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()
