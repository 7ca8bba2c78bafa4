"""Who and where a run is: the sweep's identity across drivers, its tags, and readable names."""

from __future__ import annotations

import getpass
import json
import logging
import os
import platform
import subprocess
import sys
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, Final

from drl_ray_tracking import names
from drl_ray_tracking.fingerprint import jsonable
from drl_ray_tracking.trials.past import without_addresses
from drl_ray_tracking.trials.place import Place
from drl_ray_tracking.trials.redaction import redact
from drl_ray_tracking.trials.tracked import Defaults, Tracked

_log = logging.getLogger(__name__)
_DIFF_LIMIT: Final = 1_000_000
_RESOURCES: Final = ("CPU", "GPU", "memory", "object_store_memory")


@dataclass(frozen=True)
class SweepIdentity:
    """A sweep as it is known across restarts; `epoch` counts the drivers that have run it."""

    sweep_id: str
    epoch: int
    name: str


def claim_sweep(filesystem: Any, experiment_path: str, name: str) -> SweepIdentity:
    """Reads the sweep's identity from Tune's experiment directory, or makes one; raises its epoch.

    Args:
        filesystem: the pyarrow filesystem of Tune's storage.
        experiment_path: the experiment's directory on it.
        name: the experiment directory's name, kept for people.
    """
    path = f"{experiment_path}/{names.IDENTITY_FILE}"
    identity = SweepIdentity(uuid.uuid4().hex, 1, name)
    try:
        with filesystem.open_input_stream(path) as stream:
            known = json.loads(stream.read())
        identity = SweepIdentity(str(known["sweep_id"]), int(known["epoch"]) + 1, str(known["name"]))
    except FileNotFoundError:
        pass
    except (ValueError, KeyError, TypeError) as error:  # half a file, or a person's
        _log.warning("%s is not readable (%s): this becomes a new sweep", path, error)
    Place(filesystem, experiment_path).keep(names.IDENTITY_FILE, json.dumps(asdict(identity)))
    return identity


def write_tracked(filesystem: Any, experiment_path: str, tracked: Tracked) -> None:
    """Keeps how the sweep's trials are tracked beside its identity."""
    Place(filesystem, experiment_path).keep(names.TRIALS_FILE, tracked.to_text())


def context_tags() -> dict[str, str]:
    """Returns who runs what, where: user, source, code version, Ray version, job, node."""
    source = Path(sys.argv[0]).resolve() if sys.argv and sys.argv[0] else Path.cwd()
    tags = {"mlflow.source.type": "LOCAL", names.TAG_NODE: platform.node(), **person_and_code(source)}
    tags.update(_ray_tags())
    return tags


def person_and_code(source: Path) -> dict[str, str]:
    """Returns who runs which file at which commit."""
    tags = {"mlflow.user": _user(), "mlflow.source.name": str(source)}
    folder = source.resolve().parent if source.is_file() else Path.cwd()
    commit = _git(folder, "rev-parse", "HEAD") or _git(Path.cwd(), "rev-parse", "HEAD")
    if commit:
        tags["mlflow.source.git.commit"] = commit
    return tags


def working_diff(secrets: Sequence[str]) -> str:
    """Returns `git diff HEAD` of the working directory, redacted and bounded; empty where clean."""
    # Redacted before it is cut: half a secret would not be found.
    return str(redact(_git(Path.cwd(), "diff", "HEAD"), secrets))[:_DIFF_LIMIT]


def installed_versions() -> str:
    """Returns every installed distribution as a line `name==version`, sorted: the lock of this environment."""
    found = {(dist.metadata["Name"] or "?").lower(): dist.version for dist in distributions()}
    return "".join(f"{name}=={version}\n" for name, version in sorted(found.items()))


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return str(os.getuid())


def _ray_tags() -> dict[str, str]:
    import ray

    tags = {names.TAG_RAY_VERSION: ray.__version__}
    if ray.is_initialized():
        tags[names.TAG_JOB_ID] = str(ray.get_runtime_context().get_job_id())
        resources = dict(ray.cluster_resources())  # type: ignore[no-untyped-call]
        tags[names.TAG_CLUSTER] = json.dumps({kind: resources[kind] for kind in _RESOURCES if kind in resources})
    job = os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR")
    if job:
        metadata = json.loads(job).get("metadata") or {}
        # A job's driver knows neither the person nor the code: who submitted it says so in its metadata.
        tags.update({key: str(value) for key, value in metadata.items() if key.startswith("mlflow.")})
        if metadata.get("job_submission_id"):
            tags[names.TAG_SUBMISSION_ID] = str(metadata["job_submission_id"])
    return tags


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            encoding="utf-8",
            errors="replace",  # a diff carries whatever bytes the files have
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def default_config(trainable: str) -> Defaults:
    """Returns the defaults of an algorithm of RLlib's by its registered name; empty where there are none."""
    from ray.tune.registry import get_trainable_cls

    try:
        return defaults_of(get_trainable_cls(trainable))  # type: ignore[no-untyped-call]
    except Exception as error:  # noqa: BLE001 - an algorithm of the user's, not registered in this process
        _log.info("the defaults of %s are not known: %s", trainable, error)
        return Defaults()


def defaults_of(trainable: Any) -> Defaults:
    """Returns the defaults of a trainable class; empty where it has none."""
    from ray.air._internal.json import SafeFallbackEncoder

    if not hasattr(trainable, "get_default_config"):
        return Defaults()
    default = trainable.get_default_config()
    default = default.to_dict() if hasattr(default, "to_dict") else default
    written = without_addresses(json.loads(json.dumps(default, cls=SafeFallbackEncoder)))
    return Defaults(jsonable(default), written)
