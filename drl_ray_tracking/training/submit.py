"""Hands a sweep to a Ray cluster as a job: packs what it needs, submits, follows, returns its exit code.

Nothing but the head's dashboard address is needed here. The job gets this very version of the package, the
configuration, and the data file it names; the packages these rest on must be installed on the nodes.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import Any, Final
from urllib.parse import urlsplit

import yaml

import drl_ray_tracking
from drl_ray_tracking.errors import ConfigurationError, TrackingError
from drl_ray_tracking.tracking.identity import person_and_code
from drl_ray_tracking.tracking.target import resolve_target
from drl_ray_tracking.training.config import SweepConfig, load_config
from drl_ray_tracking.trials.redaction import redact

DEFAULT_ADDRESS: Final = "http://127.0.0.1:8265"
EXCLUDES: Final = (".git", ".venv", "__pycache__", "mlartifacts", "mlflow.db")
_ADDRESS_VARIABLES: Final = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
_STAGED: Final = "sweep.yaml"
_POLL_S: Final = 1.0
_PATIENCE: Final = 30  # polls that may fail in a row: a head being restarted answers again within half a minute
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Submission:
    """What is asked of a cluster.

    Args:
        config: the sweep's YAML file.
        address: the dashboard of the cluster's head, or None for Ray's own variables, else this machine.
        tracking_uri: where the job tracks; it wins over the file's `tracking.uri`. None is the file's, else
            `$MLFLOW_TRACKING_URI` here, else what the cluster's own environment says.
        working_dir: a folder to send along whole, with the configuration inside it; None sends the configuration
            and the data file it names.
        variables: environment variables of the job. Whoever sees the dashboard sees them: no secrets.
        submission_id: the job's id; None makes one.
        python: the interpreter's command on the cluster's head.
    """

    config: Path
    address: str | None = None
    tracking_uri: str | None = None
    working_dir: Path | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    submission_id: str | None = None
    python: str = "python"


def submit(request: Submission, say: Say, *, follow: bool = True) -> int:
    """Submits a sweep and returns the job's exit code; 0 at once where it is not followed.

    Args:
        request: what to submit where.
        say: takes text for a person, and every line of the job's log.
        follow: waits for the job's end. Interrupted, it leaves the job running.

    Raises:
        ConfigurationError: the configuration is wrong, the cluster cannot be reached or refuses.
        TrackingError: the cluster has not answered for half a minute while the job ran.
    """
    config = load_config(request.config)
    _check_variables(request.variables)
    uri = _tracking_uri(request, config)
    with _staged(request, config, uri) as (folder, relative):
        address = request.address or _given_address()
        client = _client(address)
        job = _send(client, request, folder, relative, uri)
    say(f"job {job} on {address}: {request.config.name}, experiment {config.experiment!r}")
    for line in _where(uri, address):
        say(line)
    say(f"compare its trials: drl-track compare {quote(config.experiment)} --job {job}")
    if not follow:
        say(f"follow it: ray job logs --address {address} --follow {job}")
        return 0
    try:
        _follow_log(client, job, say)
        return _exit_code(client, job, say)
    except KeyboardInterrupt:
        say(f"the job goes on; end it with: ray job stop --address {address} {job}")
        return 130


def _check_variables(variables: Mapping[str, str]) -> None:
    """Refuses secrets; a path to one, such as DRL_TRACK_TOKEN_FILE's, is none."""
    seen = {name: value for name, value in variables.items() if not value.startswith(("/", "~"))}
    secret = [name for name, value in redact(seen, ()).items() if value != seen[name]]
    if secret:
        raise ConfigurationError(
            f"{', '.join(secret)} would be seen by whoever sees the cluster's dashboard. Set it in the environment "
            "that Ray is started in on the head, or give --env DRL_TRACK_TOKEN_FILE=/path/there, a file with the token."
        )


def _tracking_uri(request: Submission, config: SweepConfig) -> str | None:
    given = request.tracking_uri or config.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI")
    if given is None:
        return None
    if given.startswith("sqlite") and not given.partition(":///")[2].startswith("/"):
        raise ConfigurationError(
            f"the tracking URI {given!r} is relative: a job would look for it in a folder that Ray deletes. Give "
            "a server (http://host:5000), or sqlite:////absolute/path on a cluster of one machine."
        )
    if given.startswith("sqlite"):
        return given  # a path on the head, which this machine cannot check
    target = resolve_target(given)
    if target.credentials:
        raise ConfigurationError(
            "the tracking URI holds a password, and whoever sees the cluster's dashboard would see it. Set "
            f"{', '.join(target.credentials)} in the environment that Ray is started in, and give {target.uri}"
        )
    return target.uri


@contextmanager
def _staged(request: Submission, config: SweepConfig, uri: str | None) -> Iterator[tuple[Path, str]]:
    """Makes the folder the job runs in; yields it and the configuration's path inside it."""
    _check_storage(config)
    given = request.config.resolve()
    if request.working_dir is not None:
        folder = request.working_dir.resolve()
        if not given.is_relative_to(folder):
            raise ConfigurationError(f"the configuration {given} must lie in the working directory {folder}")
        _check_data_inside(config, given.parent, folder)
        yield folder, str(given.relative_to(folder))
        return
    _check_nothing_else(config, given.parent)
    with tempfile.TemporaryDirectory(prefix="drl-submit-") as scratch:
        document = yaml.safe_load(given.read_text(encoding="utf-8"))
        data = _data_file(config, given.parent)
        if data is not None:
            # Linked, not copied: Ray reads it once, to pack it.
            (Path(scratch) / data.name).symlink_to(data)
            first = document["data"][0] if isinstance(document["data"], list) else document["data"]
            first["source"] = data.name
        if request.tracking_uri is not None:
            document["tracking"] = {**(document.get("tracking") or {}), "uri": uri}
        (Path(scratch) / _STAGED).write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
        yield Path(scratch), _STAGED


def _check_storage(config: SweepConfig) -> None:
    storage = config.storage
    if storage is not None and "://" not in storage and not storage.startswith(("/", "~")):
        raise ConfigurationError(
            f"storage {storage!r} is relative: a job would write into a folder that Ray deletes. Give an absolute "
            "path that all nodes share, or an object store (s3://bucket/folder)."
        )


def _data_file(config: SweepConfig, base: Path) -> Path | None:
    """Returns the data file to send along, or None where the cluster has it: a package's, or a path only it knows."""
    path = base / config.data.source
    if path.is_file():
        return path.resolve()
    if ":" in config.data.source or Path(config.data.source).is_absolute():
        return None
    raise ConfigurationError(
        f"data.source {config.data.source!r}: no such file (looked at {path}). A file that only the cluster has is "
        "given by its absolute path there."
    )


def _check_nothing_else(config: SweepConfig, base: Path) -> None:
    """Refuses a configuration that rests on more files beside it than its first data file."""
    beside = [market.source for market in config.more_data if (base / market.source).is_file()]
    named = [config.env_class or "", *config.callbacks, *(market.source for market in config.markets)]
    modules = (text.partition(":")[0].partition(".")[0] for text in named if ":" in text)
    beside += [f"{module}.py" for module in modules if module and (base / f"{module}.py").is_file()]
    if beside:
        raise ConfigurationError(
            f"the job needs {', '.join(dict.fromkeys(beside))} as well: give --working-dir, to send their folder whole"
        )


def _check_data_inside(config: SweepConfig, base: Path, folder: Path) -> None:
    data = _data_file(config, base)
    if data is not None and not data.is_relative_to(folder):
        raise ConfigurationError(f"the data file {data} must lie in the working directory {folder}")


def _given_address() -> str:
    return next((os.environ[name] for name in _ADDRESS_VARIABLES if os.environ.get(name)), DEFAULT_ADDRESS)


def _use_the_token_there_is() -> None:
    """Has Ray's job client send the token there is: other than `ray start` it wants RAY_AUTH_MODE set as well."""
    kept = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser()
    if os.environ.get("RAY_AUTH_TOKEN") or kept.is_file():
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def _client(address: str) -> Any:
    _use_the_token_there_is()  # before Ray is imported: it reads the mode once
    from ray.exceptions import RayError

    try:
        from ray.job_submission import JobSubmissionClient

        # Ray lets these variables win over the address it is given, without a word.
        with _without(_ADDRESS_VARIABLES):
            return JobSubmissionClient(address)
    except (RayError, ConnectionError, RuntimeError, ValueError, AssertionError) as error:
        raise ConfigurationError(
            f"no Ray cluster takes jobs at {address}: {_first_line(error)}. Give --address http://HEAD:8265 (the "
            "dashboard); a cluster that asks for a token reads it here from RAY_AUTH_TOKEN or ~/.ray/auth_token."
        ) from error


@contextmanager
def _without(variables: tuple[str, ...]) -> Iterator[None]:
    before = {name: os.environ.pop(name) for name in variables if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(before)


def _send(client: Any, request: Submission, folder: Path, relative: str, uri: str | None) -> str:
    variables = dict(request.variables)
    if uri is not None:
        variables["MLFLOW_TRACKING_URI"] = uri
    environment = {
        "working_dir": str(folder),
        "py_modules": [str(Path(drl_ray_tracking.__file__).parent)],
        "excludes": list(EXCLUDES),
        "env_vars": variables,
    }
    arguments = [request.python, "-m", "drl_ray_tracking.cli", "train", relative]
    try:
        return str(
            client.submit_job(
                entrypoint=" ".join(map(quote, arguments)),
                runtime_env=environment,
                metadata={**person_and_code(request.config), "mlflow.source.type": "JOB"},
                submission_id=request.submission_id or f"drl-{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}",
            )
        )
    except (RuntimeError, ValueError, ConnectionError) as error:
        raise ConfigurationError(f"the cluster refuses the job: {_first_line(error)}") from error


def _where(uri: str | None, address: str) -> list[str]:
    if uri is None:
        return ["tracked where the cluster's own MLFLOW_TRACKING_URI says"]
    lines = [f"tracked in {uri}"]
    if urlsplit(uri).hostname in _LOOPBACK and urlsplit(address).hostname not in _LOOPBACK:
        lines.append(f"note: {urlsplit(uri).hostname} is the cluster's head there, not this machine")
    return lines


def _follow_log(client: Any, job: str, say: Say) -> None:
    async def follow() -> None:
        async for lines in client.tail_job_logs(job):
            for line in lines.splitlines():
                say(line)

    try:
        asyncio.run(follow())
    except (OSError, RuntimeError) as error:
        say(f"its log cannot be followed ({_first_line(error)}); waiting for its end")


def _exit_code(client: Any, job: str, say: Say) -> int:
    """Waits for the job's end; its own exit code, and 1 where it has none, as when it was stopped."""
    failures = 0
    while True:
        try:
            info = client.get_job_info(job)
            failures = 0
        except (OSError, RuntimeError) as error:
            failures += 1
            if failures >= _PATIENCE:
                raise TrackingError(
                    f"the cluster has not answered about job {job} for {_PATIENCE * _POLL_S:.0f} s: "
                    f"{_first_line(error)}. It may still run; what it tracked is in MLflow."
                ) from error
        else:
            if info.status.is_terminal():
                break
        time.sleep(_POLL_S)
    if info.status == "SUCCEEDED":
        return 0
    say(f"job {job}: {info.status.lower()}. {info.message or ''}".strip())
    return int(info.driver_exit_code or 1)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
