"""A Ray head of the tests' own: started in its own process group, ended by it, everything on 127.0.0.1."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.network import free_port


@dataclass(frozen=True)
class Head:
    """A running Ray head: where jobs are submitted, and where its sessions lie."""

    dashboard: str
    environment: dict[str, str]
    temp_dir: Path


def ray_command() -> str:
    return str(Path(sys.executable).with_name("ray"))


@pytest.fixture(scope="session")
def ray_head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    # Ray's socket paths must stay under 107 characters, pytest's directories are too long for that.
    temp_dir = Path(tempfile.mkdtemp(prefix="drl-ray-"))
    dashboard = free_port()
    log = (tmp_path_factory.mktemp("head") / "head.log").open("wb")
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    environment.pop("RAY_ADDRESS", None)
    head = subprocess.Popen(
        [
            ray_command(), "start", "--head", "--block", "--num-cpus=2", "--node-ip-address=127.0.0.1",
            f"--port={free_port()}", f"--dashboard-port={dashboard}", "--dashboard-host=127.0.0.1",
            f"--dashboard-agent-listen-port={free_port()}", f"--ray-client-server-port={free_port()}",
            f"--temp-dir={temp_dir}", "--disable-usage-stats",
        ],
        stdout=log, stderr=log, env=environment, start_new_session=True,
    )  # fmt: skip
    address = f"http://127.0.0.1:{dashboard}"
    deadline = time.monotonic() + 90
    while True:
        try:
            urllib.request.urlopen(f"{address}/api/version", timeout=2)
            break
        except OSError:
            assert head.poll() is None and time.monotonic() < deadline, Path(log.name).read_text()[-2000:]
            time.sleep(0.2)
    yield Head(address, environment, temp_dir)
    os.killpg(head.pid, signal.SIGTERM)
    try:
        head.wait(timeout=20)
    except subprocess.TimeoutExpired:
        os.killpg(head.pid, signal.SIGKILL)
        head.wait(timeout=20)
    log.close()
