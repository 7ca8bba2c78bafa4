"""Checks and completes a tracking URI before training starts: absolute, supported, free of secrets."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, quote, unquote, urlsplit, urlunsplit

from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.names import suggestion
from drl_ray_tracking.trials.redaction import looks_secret, redact

_ARTIFACTS: Final = "mlartifacts"
_DATABASES: Final = ("sqlite", "postgresql", "mysql", "mssql")
_SERVERS: Final = ("http", "https", "databricks", "databricks-uc")
_SQLITE: Final = re.compile(r"(?P<scheme>sqlite(\+\w+)?):///(?P<path>[^?]+)(?P<query>\?.*)?")
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
    found = _without_credentials(uri, scheme)
    if scheme in _SERVERS:
        return found
    # MLflow alone would choose the working directory, which is the courier's: a journal's, deleted after delivery.
    beside = Path.home() if _RAY_SESSION.search(f"{cwd}/") else cwd
    return replace(found, artifact_root=str(beside / _ARTIFACTS))


def artifact_place(given: str | None, target: Target, *, cwd: Path | None = None) -> str | None:
    """Returns where a new experiment keeps its artifacts: what is given, else the target's own place.

    A relative path becomes absolute, for the courier works elsewhere. A server takes it as it is: as a path of its own.

    Raises:
        ConfigurationError: it is relative, and the working directory a Ray session's, which Ray deletes.
    """
    if not given or _is_server(target.uri):
        return given or target.artifact_root
    scheme = urlsplit(given).scheme
    path = Path(unquote(urlsplit(given).path) if scheme == "file" else given).expanduser()
    if scheme not in ("", "file") or (path.is_absolute() and not given.startswith("~")):
        return given
    place = (cwd or Path.cwd()) / path
    if _RAY_SESSION.search(f"{place}/"):
        raise ConfigurationError(
            f"artifact_location={given!r} would lie in a Ray session directory, which Ray deletes (`ray job submit` "
            "runs the driver there). Give an absolute path on a disk that stays."
        )
    return str(place)


def working_folder(uri: str | None, location: str | None) -> Path | None:
    """Returns the directory in which MLflow may root what a new database makes it root: its `Default` experiment.

    That of a SQLite file; of another database, where its artifacts are kept beside; None for a server.
    """
    if uri is None or _is_server(uri):
        return None
    match = _SQLITE.fullmatch(uri)
    if match is not None:
        return Path(match["path"]).parent
    beside = Path(location or "").parent
    return beside if beside.is_absolute() and beside.is_dir() else None


def _sqlite_target(uri: str, cwd: Path) -> Target:
    match = _SQLITE.fullmatch(uri)
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
    return Target(f"{match['scheme']}:///{path}{match['query'] or ''}", artifact_root=str(path.parent / _ARTIFACTS))


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


def _is_server(uri: str) -> bool:
    return uri.partition("://")[0].lower() in _SERVERS


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
