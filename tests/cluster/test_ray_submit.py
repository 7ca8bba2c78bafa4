"""`ray up` and `ray submit` with `cluster/local.yaml`, over an sshd of the test's own on 127.0.0.1.

The remote user's home is a directory of the test's: nothing is read or written in anybody's own. What differs from
the file are addresses, ports and `ray stop`, which would end every Ray of this machine.
"""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

import psutil
import pytest
import yaml
from mlflow.tracking import MlflowClient

from drl_ray_tracking import names
from tests.cluster.conftest import ray_command
from tests.cluster.runs import trials_of
from tests.network import free_port
from tests.waiting import wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]
ROOT = Path(__file__).parents[2]
SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
TOOLS = {"sshd": SSHD, **{tool: shutil.which(tool) for tool in ("ssh", "ssh-keygen", "rsync", "bash")}}
MISSING = [name for name, found in TOOLS.items() if found is None]


@dataclass(frozen=True)
class Machine:
    """Where one can log in: this machine, with a home of its own."""

    home: Path
    port: int
    key: Path


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    # Ray's socket paths must stay under 107 characters, pytest's directories are too long for that.
    scratch = Path(tempfile.mkdtemp(prefix="drl-ssh-"))
    home, keys = tmp_path / "remote-home", tmp_path / "keys"
    home.mkdir()
    keys.mkdir(mode=0o700)
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", keys / name], check=True)
    (home / ".profile").write_text(
        f"export PATH={quote(str(Path(sys.executable).parent))}:$PATH RAY_TMPDIR={scratch} "
        f"RAY_USAGE_STATS_ENABLED=0 DRL_TRACK_HOME={quote(str(home / 'drl_track'))}\n"
    )
    (home / ".bashrc").touch()
    entry = keys / "entry.sh"
    entry.write_text(f'export HOME={quote(str(home))}\ncd "$HOME"\nexec bash -c "$SSH_ORIGINAL_COMMAND"\n')
    port = free_port()
    settings = {
        "ListenAddress": f"127.0.0.1:{port}",
        "HostKey": keys / "host",
        "AuthorizedKeysFile": f'"{keys / "user.pub"}"',
        "PidFile": "none",
        "StrictModes": "no",  # its directories belong to whoever runs the test
        "UsePAM": "no",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "PermitRootLogin": "prohibit-password",
        "ForceCommand": f"bash {quote(str(entry))}",
    }
    (keys / "sshd_config").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where a root's sshd locks its unprivileged part up
    with (tmp_path / "sshd.log").open("wb") as log:
        daemon = subprocess.Popen([str(SSHD), "-D", "-e", "-f", str(keys / "sshd_config")], stdout=log, stderr=log)
    try:
        made = Machine(home, port, keys / "user")
        wait_until(lambda: lets_in(made, daemon, tmp_path / "sshd.log"), timeout_s=60, what="sshd lets the user in")
        yield made
    finally:
        end_ray(scratch)
        daemon.terminate()
        daemon.wait(timeout=20)
        shutil.rmtree(scratch, ignore_errors=True)


def proxy(port: int) -> str:
    return f"{sys.executable} {Path(__file__).with_name('through_port.py')} {port}"


def lets_in(machine: Machine, daemon: subprocess.Popen[bytes], log: Path) -> bool:
    assert daemon.poll() is None, log.read_text()
    options = {"ProxyCommand": proxy(machine.port), "StrictHostKeyChecking": "no", "UserKnownHostsFile": "/dev/null"}
    command = ["ssh", "-i", str(machine.key), *[f"-o{name}={value}" for name, value in options.items()]]
    done = subprocess.run(
        [*command, f"{getpass.getuser()}@127.0.0.1", "pwd"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() == str(machine.home)


def end_ray(scratch: Path) -> None:
    """Ends the processes of the Ray whose sessions lie in a directory, and their children: no other."""
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if any(str(scratch) in part for part in process.cmdline()):
                found |= {one.pid: one for one in (process, *process.children(recursive=True))}
    for process in found.values():
        with suppress(psutil.Error):
            process.send_signal(signal.SIGKILL)
    psutil.wait_procs(list(found.values()), timeout=30)


def with_one_seed(folder: Path) -> Path:
    """Writes the demo with one seed instead of three into a folder: all six trials are in test_job.py."""
    demo = yaml.safe_load((ROOT / "configs" / "demo.yaml").read_text())
    folder.mkdir()
    (folder / "demo.yaml").write_text(yaml.safe_dump({**demo, "seeds": [1]}))
    return folder


def for_this_machine(machine: Machine, server: str, configs: Path) -> dict[str, Any]:
    """The file of the repository, with this machine's addresses and ports and a folder of configurations in it."""
    text = (ROOT / "cluster" / "local.yaml").read_text().replace("http://192.0.2.10:5000", server)
    config: dict[str, Any] = yaml.safe_load(text)
    start = (
        f"--port={free_port()} --node-ip-address=127.0.0.1 --num-cpus=2 --dashboard-port={free_port()} "
        f"--dashboard-agent-listen-port={free_port()} --ray-client-server-port={free_port()}"
    )
    return {
        **config,
        "cluster_name": f"drl-{machine.port}",  # ssh connections are shared by that name
        "provider": {"type": "local", "head_ip": "127.0.0.1", "worker_ips": []},
        "auth": {
            "ssh_user": getpass.getuser(),
            "ssh_private_key": str(machine.key),
            "ssh_proxy_command": proxy(machine.port),
        },
        "file_mounts": {**config["file_mounts"], "~/drl/configs": str(configs)},
        "min_workers": 0,
        "max_workers": 0,
        "head_start_ray_commands": [
            command.replace("--port=6379", start)
            for command in config["head_start_ray_commands"]
            if command != "ray stop"
        ],
    }


@pytest.mark.skipif(bool(MISSING), reason=f"missing here: {', '.join(MISSING)} (Debian: openssh-server, rsync)")
def test_ray_submit_runs_the_demo_on_a_machine_reached_by_ssh(
    machine: Machine, postgres_server: str, tmp_path: Path
) -> None:
    laptop = tmp_path / "laptop"
    laptop.mkdir()
    config = for_this_machine(machine, postgres_server, with_one_seed(tmp_path / "configs"))
    (tmp_path / "cluster.yaml").write_text(yaml.safe_dump(config))
    environment = {**os.environ, "HOME": str(laptop), "RAY_USAGE_STATS_ENABLED": "0", "COLUMNS": "200"}
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "MLFLOW_TRACKING_URI"):
        environment.pop(name, None)

    def ray(*arguments: str) -> str:
        done = subprocess.run(
            [ray_command(), *arguments],
            capture_output=True, text=True, timeout=1000, check=False, env=environment, cwd=ROOT,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
        return done.stdout

    ray("get-auth-token", "--generate")
    ray("up", "--yes", "--no-config-cache", str(tmp_path / "cluster.yaml"))
    said = ray(
        "submit",
        "--no-config-cache",
        str(tmp_path / "cluster.yaml"),
        "cluster/submit_entry.py",
        "~/drl/configs/demo.yaml",
    )

    client = MlflowClient(postgres_server)
    (parent,) = [run for run in trials_of(client, "demo", names.ROLE_SWEEP) if run.info.run_id in said]
    trials = [run for run in trials_of(client, "demo") if run.data.tags["mlflow.parentRunId"] == parent.info.run_id]
    assert len(trials) == 2
    assert {run.info.status for run in (parent, *trials)} == {"FINISHED"}
    assert all(names.DEFAULT_METRIC in run.data.metrics for run in trials)
    assert parent.data.tags["mlflow.source.name"] == str(machine.home / "submit_entry.py")
    token = (laptop / ".ray" / "auth_token").read_text()
    assert (machine.home / ".ray" / "auth_token").read_text() == token, "the token came with the file mounts"
    journals = machine.home / "drl_track" / "journals"
    wait_until(lambda: not list(journals.iterdir()), timeout_s=300, what="the courier has drawn, delivered and gone")
