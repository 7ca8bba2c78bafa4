"""What keeps strangers out: MLflow as `cluster/compose.yaml` starts it, over TLS; Ray with token and certificates.

Basic auth, allowed host names, PostgreSQL and the S3-compatible store are those of the compose file's own command
and environment; only names of machines become this one's. A bearer token is in tests/faults (F20).
"""

from __future__ import annotations

import base64
import os
import re
import secrets
import shutil
import ssl
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from mlflow.tracking import MlflowClient
from pyarrow.fs import FileSelector, S3FileSystem

from drl_ray_tracking import names
from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.tracking.preflight import check_store
from tests.certificates import Certificates, make_certificates
from tests.cluster.conftest import started_head
from tests.cluster.runs import drl_track, small, trials_of
from tests.servers import ADMIN, Server, postgres, running, s3_server

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
COMPOSE = Path(__file__).parents[2] / "cluster" / "compose.yaml"
GIVEN = ("MLFLOW_AUTH_ADMIN_PASSWORD", "MLFLOW_FLASK_SERVER_SECRET_KEY", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


@dataclass(frozen=True)
class Secured:
    """A server behind TLS and basic auth, and what opens it."""

    address: str
    password: str
    certificates: Certificates
    objects: S3FileSystem

    @property
    def environment(self) -> dict[str, str]:
        return {
            "MLFLOW_TRACKING_USERNAME": ADMIN,
            "MLFLOW_TRACKING_PASSWORD": self.password,
            "MLFLOW_TRACKING_SERVER_CERT_PATH": str(self.certificates.authority),
        }


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("secured")
    certificates = make_certificates(folder, ray.util.get_node_ip_address())  # nodes call each other by that
    given = {name: secrets.token_hex(12) for name in GIVEN}
    given |= {"MLFLOW_ALLOWED_HOSTS": "127.0.0.1:*", "POSTGRES_PASSWORD": "of no use to a socket"}
    data = Path(tempfile.mkdtemp(prefix="drl-pg-"))  # PostgreSQL runs as a user who must be able to come here
    data.chmod(0o755)
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        stack.callback(shutil.rmtree, data, ignore_errors=True)
        for name, value in given.items():
            if name.startswith("AWS"):
                patch.setenv(name, value)
        objects = stack.enter_context(s3_server(folder, "mlflow"))
        database = stack.enter_context(postgres(data / "data"))
        compose = filled(yaml.safe_load(COMPOSE.read_text()), given, database, objects)
        service = compose["services"]["mlflow"]
        (folder / "auth.ini").write_text(compose["configs"]["auth"]["content"])
        environment = {**service["environment"], "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini")}
        certified = f"--ssl-keyfile {certificates.key} --ssl-certfile {certificates.certificate}"
        options = [
            option for option in service["command"][2:] if not option.startswith(("--host", "--port", "--workers"))
        ]
        server = Server(
            folder,
            environment["MLFLOW_BACKEND_STORE_URI"],
            options=[*options, "--uvicorn-opts", certified],
            environment=environment,
            authority=certificates.authority,
        )
        stack.enter_context(running(server))
        files = S3FileSystem(endpoint_override=objects, scheme="http", region="us-east-1")
        yield Secured(server.address, given["MLFLOW_AUTH_ADMIN_PASSWORD"], certificates, files)


def filled(compose: Any, given: dict[str, str], database: str, objects: str) -> Any:
    """The compose file with its variables filled in, and this machine's servers in the place of its containers."""
    if isinstance(compose, dict):
        return {key: filled(value, given, database, objects) for key, value in compose.items()}
    if isinstance(compose, list):
        return [filled(value, given, database, objects) for value in compose]
    if not isinstance(compose, str):
        return compose
    text = re.sub(r"\$\{(\w+)[^}]*\}", lambda found: given[found[1]], compose)
    return text.replace("postgresql://mlflow@database:5432/mlflow", database).replace("objects:9000", objects)


def test_a_driver_is_told_what_opens_the_server(secured: Secured, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="MLFLOW_TRACKING_SERVER_CERT_PATH"):
        check_store(secured.address, "secured")
    authority = secured.environment["MLFLOW_TRACKING_SERVER_CERT_PATH"]
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", authority)
    with pytest.raises(ConfigurationError, match="MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"):
        check_store(secured.address, "secured")
    opened = base64.b64encode(f"{ADMIN}:{secured.password}".encode()).decode()
    headers = {"Host": "elsewhere:5000", "Authorization": f"Basic {opened}"}
    request = urllib.request.Request(
        f"{secured.address}/api/2.0/mlflow/experiments/get?experiment_id=0", headers=headers
    )
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(request, context=ssl.create_default_context(cafile=authority), timeout=30)
    check_store(secured.address, "secured", secured.environment)


def test_a_job_reaches_it_with_what_the_head_was_started_with(
    secured: Secured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = secrets.token_hex(32)
    locked = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token,
        "RAY_USE_TLS": "1",
        "RAY_TLS_SERVER_CERT": str(secured.certificates.certificate),
        "RAY_TLS_SERVER_KEY": str(secured.certificates.key),
        "RAY_TLS_CA_CERT": str(secured.certificates.authority),
    }
    config = small(tmp_path, "locked", seeds=[1], stop={"training_iteration": 1}, evaluation={"interval": 1})
    home = tmp_path / "cluster-home"
    arguments = ["submit", str(config), "--tracking-uri", secured.address, "--env", f"DRL_TRACK_HOME={home}"]
    with started_head(tmp_path, **locked, **secured.environment) as head:
        arguments += ["--address", head.dashboard]
        nobody = tmp_path / "nobody"
        nobody.mkdir()
        refused = drl_track(*arguments, cwd=tmp_path, HOME=str(nobody))
        assert refused.returncode == 2, refused.stdout[-2000:] + refused.stderr[-2000:]
        assert "reads it here from RAY_AUTH_TOKEN or ~/.ray/auth_token" in refused.stderr
        assert "Traceback" not in refused.stderr
        done = drl_track(*arguments, cwd=tmp_path, HOME=str(nobody), RAY_AUTH_TOKEN=token)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    for value in (token, secured.password):
        assert value not in done.stdout + done.stderr

    for name, value in secured.environment.items():
        monkeypatch.setenv(name, value)
    client = MlflowClient(secured.address)
    (trial,) = trials_of(client, "locked")
    (parent,) = trials_of(client, "locked", names.ROLE_SWEEP)
    assert trial.info.status == parent.info.status == "FINISHED"
    assert "eval/trading/sharpe" in trial.data.metrics
    stored = secured.objects.get_file_info(FileSelector("mlflow", recursive=True))
    assert [item for item in stored if trial.info.run_id in item.path and item.is_file], "its files are in the S3 store"
    assert os.environ["MLFLOW_TRACKING_PASSWORD"] not in str(trial.data.tags) + str(trial.data.params)
