"""The doctor: each thing that may be wrong is said with what to do, and nothing is left behind."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from drl_ray_tracking.home import HOME_VARIABLE
from drl_ray_tracking.tracking import doctor
from drl_ray_tracking.tracking.doctor import SUPPORTED, examine
from drl_ray_tracking.tracking.journal import JournalWriter, new_journal_directory
from tests.network import free_port
from tests.tracking.journals import opening, sweep, write

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


def wrong_lines(uri: str | None) -> list[str]:
    said: list[str] = []
    right = examine(uri, said.append)
    wrong = [line for line in said if line.startswith("WRONG")]
    assert right == (not wrong)
    assert all(" - " in line for line in said), "every line says what to do"
    return wrong


@pytest.mark.mlflow
def test_nothing_is_wrong_and_nothing_is_left_behind(sqlite_store: Callable[[], str]) -> None:
    from mlflow.tracking import MlflowClient

    uri = sqlite_store()
    assert wrong_lines(uri) == []
    experiments = MlflowClient(uri).search_experiments()
    assert [experiment.name for experiment in experiments] == ["Default"]
    assert experiments[0].tags == {}


@pytest.mark.mlflow
def test_a_server_is_asked_too(mlflow_server: str) -> None:
    assert wrong_lines(mlflow_server) == []


def test_a_store_that_does_not_exist_yet_is_not_made(tmp_path: Path) -> None:
    assert wrong_lines(f"sqlite:///{tmp_path}/new.db") == []
    assert not (tmp_path / "new.db").exists()


@pytest.mark.mlflow
@pytest.mark.parametrize(
    ("answer", "remedy"),
    [
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", "--allowed-hosts"),
        (b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", "MLFLOW_TRACKING_USERNAME"),
        (b"", "start the server"),
    ],
)
def test_a_server_that_refuses(answer: bytes, remedy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket
    import threading

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)

        def serve() -> None:
            for _ in range(10):
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        (line,) = wrong_lines(f"http://127.0.0.1:{server.getsockname()[1]}")
        server.shutdown(socket.SHUT_RDWR)
    thread.join()
    assert remedy in line


@pytest.mark.parametrize(
    ("uri", "said"), [("file:///x", "is a file store"), (f"http://127.0.0.1:{free_port()}", "does not answer")]
)
@pytest.mark.mlflow
def test_a_store_that_cannot_be_used(uri: str, said: str) -> None:
    (line,) = wrong_lines(uri)
    assert said in line


def test_versions_out_of_range(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"ray": "2.9.0", "mlflow": "4.0.0rc1", "torch": "2.10.0+cpu"}
    monkeypatch.setattr(doctor, "_installed", versions.get)
    first, second = wrong_lines(f"sqlite:///{tmp_path}/new.db")
    assert "install 'ray>=2.60,<3'" in first
    assert "install 'mlflow>=3.17,<4'" in second


def test_the_ranges_are_those_of_the_package() -> None:
    declared = " ".join(tomllib.loads(PYPROJECT.read_text())["project"]["dependencies"])
    for package, (least, below) in SUPPORTED.items():
        found = re.search(rf"{package}(\[[^]]*\])?>=([\d.]+)(,<(\d+))?", declared)
        assert found is not None
        assert tuple(map(int, found[2].split("."))) == least
        assert (int(found[4]) if found[4] else None) == (below[0] if below else None)


def test_a_left_over_journal(tmp_path: Path) -> None:
    directory = new_journal_directory()
    writer = JournalWriter(directory)
    write(writer, [opening(), sweep()])
    assert wrong_lines(f"sqlite:///{tmp_path}/new.db") == [], "a running sweep's journal is in order"
    writer.close()
    (line,) = wrong_lines(f"sqlite:///{tmp_path}/new.db")
    assert "2 events wait" in line
    assert "drl-track sync" in line


def test_a_home_on_a_network_filesystem_and_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setattr(doctor, "_store", lambda given: [])
    monkeypatch.setattr(doctor, "filesystem_type", lambda path: "nfs4")
    assert HOME_VARIABLE in wrong_lines(uri)[0]
    monkeypatch.setattr(doctor, "filesystem_type", lambda path: "ext4")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10})())
    assert ["make room" in line for line in wrong_lines(uri)] == [True, True]
    monkeypatch.setenv("DRL_TRACK_JOURNAL_LIMIT_MB", "none")
    assert "DRL_TRACK_JOURNAL_LIMIT_MB" in wrong_lines(uri)[0]
