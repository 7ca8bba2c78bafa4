"""A Ray head of the tests' own, and more nodes beside it: each in its own process group, all on 127.0.0.1."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.network import free_port
from tests.servers import Server, postgres, running
from tests.waiting import wait_until


@dataclass(frozen=True)
class Head:
    """A running Ray head: where jobs are submitted, and where its sessions lie."""

    dashboard: str
    address: str  # what a raylet or a driver joins
    environment: dict[str, str]
    temp_dir: Path


def ray_command() -> str:
    return str(Path(sys.executable).with_name("ray"))


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an MLflow server over a real PostgreSQL, as teams run it."""
    # PostgreSQL refuses root and runs as a user of its own, who must be able to come here.
    data = Path(tempfile.mkdtemp(prefix="drl-pg-"))
    data.chmod(0o755)
    try:
        with postgres(data / "data") as database:
            server = Server(tmp_path_factory.mktemp("postgres"), database, options=["--workers", "2"])
            with running(server):
                yield server.address
    finally:
        shutil.rmtree(data, ignore_errors=True)


def answers(url: str, process: subprocess.Popen[bytes], log: Path) -> bool:
    assert process.poll() is None, log.read_text()[-2000:]
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:
            return bool(reply.status == 200)
    except urllib.error.HTTPError as refusal:
        return refusal.code in (401, 403)  # it is there, and wants a token
    except OSError:
        return False


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Ends a process started in a session of its own, and its children."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=20)


@pytest.fixture(scope="session")
def ray_head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    with started_head(tmp_path_factory.mktemp("head"), RAY_AUTH_MODE="disabled") as head:
        yield head


@contextmanager
def started_head(folder: Path, **variables: str) -> Iterator[Head]:
    """A Ray head with two CPUs; its log goes into a folder."""
    # Ray's socket paths must stay under 107 characters, pytest's directories are too long for that.
    temp_dir = Path(tempfile.mkdtemp(prefix="drl-ray-"))
    dashboard, gcs = free_port(), free_port()
    log = folder / "head.log"
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", **variables}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"  # `python` is this one
    environment.pop("RAY_ADDRESS", None)
    command = [
        ray_command(), "start", "--head", "--block", "--num-cpus=2", "--node-ip-address=127.0.0.1",
        f"--port={gcs}", f"--dashboard-port={dashboard}", "--dashboard-host=127.0.0.1",
        f"--dashboard-agent-listen-port={free_port()}", f"--ray-client-server-port={free_port()}",
        f"--temp-dir={temp_dir}", "--disable-usage-stats",
    ]  # fmt: skip
    with log.open("wb") as output:
        head = subprocess.Popen(command, stdout=output, stderr=output, env=environment, start_new_session=True)
    address = f"http://127.0.0.1:{dashboard}"
    try:
        wait_until(lambda: answers(f"{address}/api/version", head, log), timeout_s=180, what="the dashboard")
        yield Head(address, f"127.0.0.1:{gcs}", environment, temp_dir)
    finally:
        end_group(head)
        shutil.rmtree(temp_dir, ignore_errors=True)


@contextmanager
def raylet(head: Head, *prefix: str, cpus: int = 1) -> Iterator[subprocess.Popen[bytes]]:
    """One more node beside the head; `prefix` is what its command is run by. Killed by the test, it is gone already."""
    before = wait_until(lambda: alive(head), timeout_s=120, what="the head counts itself")
    # A directory of its own, as on a machine of its own: nodes that shared one would unpack a job's files over each
    # other, and take the driver's working directory away from under it.
    temp_dir = tempfile.mkdtemp(prefix="drl-node-")
    command = [
        *prefix, ray_command(), "start", "--block", f"--address={head.address}", f"--num-cpus={cpus}",
        "--node-ip-address=127.0.0.1", '--resources={"away": 1}', f"--dashboard-agent-listen-port={free_port()}",
        f"--temp-dir={temp_dir}", "--disable-usage-stats",
    ]  # fmt: skip

    def started() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=head.environment, start_new_session=True
        )

    def has_joined() -> bool:
        if processes[-1].poll() is not None:  # on a machine that is too busy, Ray gives a node up
            processes.append(started())
        return alive(head) == before + 1

    processes = [started()]
    try:
        wait_until(has_joined, timeout_s=240, what="another node joins")
        yield processes[-1]
    finally:
        end_group(processes[-1])
        shutil.rmtree(temp_dir, ignore_errors=True)
        wait_until(lambda: alive(head) == before, timeout_s=240, what="the other node leaves")


def alive(head: Head) -> int:
    """Returns how many nodes the head counts as alive."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's imports
        from ray.util.state import list_nodes

        # Not by a filter: Ray takes what one leaves out for an answer cut short.
        return sum(node.state == "ALIVE" for node in list_nodes(address=head.dashboard, timeout=60))
