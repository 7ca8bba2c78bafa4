"""Checks and completes a tracking URI before training starts: absolute, supported, free of secrets."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, quote, unquote, urlsplit, urlunsplit

from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.names import suggestion
from drl_ray_tracking.trials.redaction import looks_secret, redact

_DATABASES: Final = ("sqlite", "postgresql", "mysql", "mssql")
_SERVERS: Final = ("http", "https", "databricks", "databricks-uc")
_RAY_SESSION: Final = re.compile(r"/session_\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_[^/]*(/|$)")


@dataclass(frozen=True)
class Target:
    """Where runs go.

    `uri` carries no credential; those found in it are in `credentials`, as the environment variables
    that MLflow or the database driver reads. `artifact_root` is set where the client must choose it.
    """

    uri: str
    artifact_root: str | None = None
    credentials: Mapping[str, str] = field(default_factory=dict, repr=False)


def resolve_target(tracking_uri: str | None, *, cwd: Path | None = None) -> Target:
    """Returns the absolute, credential-free target of a tracking URI.

    None means `$MLFLOW_TRACKING_URI`, else a SQLite file `mlflow.db` in the working directory.

    Raises:
        ConfigurationError: the URI is malformed, a `file:` store, or inside a Ray session directory.
    """
    cwd = cwd or Path.cwd()
    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    if uri in ("databricks", "databricks-uc"):
        return Target(uri)
    shown = redact(uri, ())
    try:
        parts = urlsplit(uri)
        parts.port  # noqa: B018 - checks it
    except ValueError as error:
        raise ConfigurationError(f"tracking URI {shown!r} is malformed: {error}") from error
    scheme = parts.scheme.split("+")[0].lower()
    if scheme in ("file", "") or "://" not in uri:
        raise ConfigurationError(
            f"tracking URI {shown!r} is a file store, which MLflow no longer supports. "
            f"Use a SQLite file (sqlite:///{cwd}/mlflow.db) or a server (http://host:5000)."
        )
    if scheme not in _DATABASES + _SERVERS:
        hint = suggestion(scheme, _DATABASES + _SERVERS)
        raise ConfigurationError(
            f"tracking URI {shown!r} has the unknown scheme {parts.scheme!r}{hint}; "
            f"allowed are {', '.join(_DATABASES + _SERVERS)}"
        )
    if scheme == "sqlite":
        return _sqlite_target(uri, cwd)
    if scheme in _SERVERS and scheme.startswith("http") and not parts.hostname:
        raise ConfigurationError(f"tracking URI {shown!r} names no host; it should look like http://host:5000")
    return _without_credentials(uri, scheme)


def _sqlite_target(uri: str, cwd: Path) -> Target:
    match = re.fullmatch(r"(?P<scheme>sqlite(\+\w+)?):///(?P<path>[^?]+)(?P<query>\?.*)?", uri)
    if match is None:
        raise ConfigurationError(
            f"tracking URI {uri!r} is not a SQLite file; it should look like sqlite:///mlflow.db "
            "(relative) or sqlite:////absolute/path/mlflow.db"
        )
    if match["path"] == ":memory:":
        raise ConfigurationError("an in-memory SQLite store would be gone with the courier; give it a file")
    path = (cwd / match["path"]).resolve()
    if _RAY_SESSION.search(f"{path}/"):
        raise ConfigurationError(
            f"the store {path} would lie in a Ray session directory, which Ray deletes (`ray job submit` runs "
            "the driver there). Give an absolute sqlite:////path on a disk that stays, or a tracking server."
        )
    if not path.parent.is_dir():
        raise ConfigurationError(f"the directory of the store {path} does not exist: create {path.parent}")
    if not os.access(path.parent, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise ConfigurationError(f"the store {path} is not writable by this user")
    return Target(f"{match['scheme']}:///{path}{match['query'] or ''}", artifact_root=str(path.parent / "mlartifacts"))


def _without_credentials(uri: str, scheme: str) -> Target:
    parts = urlsplit(uri)
    if any(looks_secret(key) for key, _ in parse_qsl(parts.query)):
        raise ConfigurationError(
            f"the tracking URI for {scheme} holds a credential in its query, which would be written down with the "
            "run; give it in the environment instead"
        )
    location = parts.netloc.rpartition("@")[2]
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if scheme in _SERVERS:
        given = {"MLFLOW_TRACKING_USERNAME": user, "MLFLOW_TRACKING_PASSWORD": password}
        credentials = {key: value for key, value in given.items() if value}
        return Target(urlunsplit(parts._replace(netloc=location)), credentials=credentials)
    if not password:
        return Target(uri)
    if scheme == "postgresql":
        clean = parts._replace(netloc=f"{quote(user)}@{location}")
        return Target(urlunsplit(clean), credentials={"PGPASSWORD": password})
    raise ConfigurationError(
        f"the tracking URI for {scheme} holds a password, which would be written down with the run; "
        "put an MLflow server in front of the database and give its http:// address"
    )


def checked_registry(registry_uri: str | None) -> str | None:
    """Returns a registry URI as it was given.

    Raises:
        ConfigurationError: it holds a credential, which would be written down and pickled with the run.
    """
    if registry_uri is None:
        return None
    try:
        parts = urlsplit(registry_uri)
    except ValueError as error:
        raise ConfigurationError(f"registry_uri {redact(registry_uri, ())!r} is malformed: {error}") from error
    if parts.password or any(looks_secret(key) for key, _ in parse_qsl(parts.query)):
        raise ConfigurationError(
            f"registry_uri {redact(registry_uri, ())!r} holds a credential; give it in the environment instead "
            "(MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN)"
        )
    return registry_uri
