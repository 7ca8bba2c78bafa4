"""Tracking URIs: made absolute, freed of credentials, refused with the remedy where they cannot work."""

from __future__ import annotations

from pathlib import Path

import pytest

from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.tracking.target import checked_registry, resolve_target


def test_a_relative_sqlite_file_becomes_absolute(tmp_path: Path) -> None:
    target = resolve_target("sqlite:///mlflow.db", cwd=tmp_path)
    assert target.uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert target.artifact_root == f"{tmp_path}/mlartifacts"


def test_the_default_is_a_file_in_the_working_directory(tmp_path: Path) -> None:
    assert resolve_target(None, cwd=tmp_path).uri == f"sqlite:///{tmp_path}/mlflow.db"


def test_the_environment_is_the_second_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000")
    assert resolve_target(None, cwd=tmp_path).uri == "http://host:5000"
    assert resolve_target("http://other:5000", cwd=tmp_path).uri == "http://other:5000"


@pytest.mark.parametrize(
    ("given", "uri", "credentials"),
    [
        ("http://host:5000", "http://host:5000", {}),
        (
            "https://user:p%40ss@Host:5000/base",
            "https://Host:5000/base",
            {"MLFLOW_TRACKING_USERNAME": "user", "MLFLOW_TRACKING_PASSWORD": "p@ss"},
        ),
        (
            "http://u:p@[::1]:5000",
            "http://[::1]:5000",
            {"MLFLOW_TRACKING_USERNAME": "u", "MLFLOW_TRACKING_PASSWORD": "p"},
        ),
        ("https://tok3n@host", "https://host", {"MLFLOW_TRACKING_USERNAME": "tok3n"}),
        ("postgresql://u:p@host:5432/db", "postgresql://u@host:5432/db", {"PGPASSWORD": "p"}),
        ("postgresql+psycopg2://u:p@h/db?x=1", "postgresql+psycopg2://u@h/db?x=1", {"PGPASSWORD": "p"}),
        ("databricks", "databricks", {}),
        ("databricks://profile", "databricks://profile", {}),
    ],
)
def test_credentials_leave_the_uri(given: str, uri: str, credentials: dict[str, str]) -> None:
    target = resolve_target(given)
    assert target.uri == uri
    assert target.credentials == credentials
    assert not any(value in repr(target) for value in ("p%40ss", "p@ss"))


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("file:///tmp/mlruns", "no longer supports"),
        ("./mlruns", "no longer supports"),
        ("htp://host:5000", "did you mean 'http'"),
        ("http://", "names no host"),
        ("http://host:port", "malformed"),
        ("sqlite:///:memory:", "in-memory"),
        ("sqlite://mlflow.db", "sqlite:///mlflow.db"),
        ("sqlite:////no/such/directory/mlflow.db", "does not exist"),
        ("mysql://u:hunter22@host/db", "MLflow server in front"),
        ("postgresql://host/db?user=u&password=hunter22", "in the environment"),
    ],
)
def test_what_cannot_work_is_refused_with_the_remedy(uri: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as refusal:
        resolve_target(uri)
    assert "hunter22" not in str(refusal.value)


def test_no_password_in_the_message_about_a_malformed_uri() -> None:
    with pytest.raises(ConfigurationError) as refusal:
        resolve_target("htp://user:hunter22@host")
    assert "hunter22" not in str(refusal.value)


def test_a_ray_session_directory_is_refused(tmp_path: Path) -> None:
    session = tmp_path / "session_2026-01-31_10-11-12_123456_789" / "runtime"
    session.mkdir(parents=True)
    with pytest.raises(ConfigurationError, match="Ray deletes"):
        resolve_target("sqlite:///mlflow.db", cwd=session)


def test_a_registry_keeps_no_password() -> None:
    assert checked_registry(None) is None
    assert checked_registry("http://host:5000") == "http://host:5000"
    with pytest.raises(ConfigurationError, match="in the environment") as refusal:
        checked_registry("postgresql://u:hunter22@host/db")
    assert "hunter22" not in str(refusal.value)
