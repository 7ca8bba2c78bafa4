"""Who and where a run is: the sweep's identity across drivers, its tags, and readable names."""

from __future__ import annotations

import getpass
import json
import logging
import os
import platform
import re
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from drl_ray_tracking import names
from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.tracking.past import without_addresses
from drl_ray_tracking.tracking.redaction import redact

_log = logging.getLogger(__name__)
RUN_NAME: Final = "{algorithm}-{market}-{timeframe}-{seed}-{hash}"
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
    filesystem.create_dir(experiment_path, recursive=True)
    # Renamed into place: half an identity would make the next driver a sweep of its own.
    with filesystem.open_output_stream(f"{path}.new") as stream:
        stream.write(json.dumps(asdict(identity)).encode())
    filesystem.move(f"{path}.new", path)
    return identity


def context_tags() -> dict[str, str]:
    """Returns who runs what, where: user, source, code version, Ray version, job, node."""
    source = Path(sys.argv[0]).resolve() if sys.argv and sys.argv[0] else Path.cwd()
    tags = {
        "mlflow.user": _user(),
        "mlflow.source.name": str(source),
        "mlflow.source.type": "LOCAL",
        names.TAG_NODE: platform.node(),
    }
    folder = source.parent if source.is_file() else Path.cwd()
    commit = _git(folder, "rev-parse", "HEAD") or _git(Path.cwd(), "rev-parse", "HEAD")
    if commit:
        tags["mlflow.source.git.commit"] = commit
    tags.update(_ray_tags())
    return tags


def working_diff(secrets: Sequence[str]) -> str:
    """Returns `git diff HEAD` of the working directory, redacted and bounded; empty where clean."""
    # Redacted before it is cut: half a secret would not be found.
    return str(redact(_git(Path.cwd(), "diff", "HEAD"), secrets))[:_DIFF_LIMIT]


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
        submission = json.loads(job).get("metadata", {}).get("job_submission_id")
        if submission:
            tags[names.TAG_SUBMISSION_ID] = str(submission)
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


@dataclass(frozen=True)
class TrialIdentity:
    """What tells one trial from another; parts that do not apply are empty."""

    trial_id: str
    algorithm: str
    env: str
    symbols: tuple[str, ...]
    timeframe: str
    seed: str
    config_hash: str

    def tags(self) -> dict[str, str]:
        """Returns the parts as tags."""
        parts = {
            names.TAG_ALGORITHM: self.algorithm,
            names.TAG_ENV: self.env,
            names.TAG_SYMBOLS: ",".join(self.symbols),
            names.TAG_TIMEFRAME: self.timeframe,
            names.TAG_SEED: self.seed,
            names.TAG_CONFIG_HASH: self.config_hash,
        }
        return {key: value for key, value in parts.items() if value}

    def run_name(self, pattern: str) -> str:
        """Fills a pattern such as `{algorithm}-{market}-{timeframe}-{seed}-{hash}`; empty parts fall out.

        `{market}` is the symbols, or the environment's name where nothing is traded; a trial without a
        seed carries the end of its trial id instead, so that names stay apart.
        """
        symbols = "+".join(self.symbols[:3]) + (f"+{len(self.symbols) - 3}" if len(self.symbols) > 3 else "")
        parts = {
            "algorithm": self.algorithm.lower(),
            "market": symbols or self.env,
            "timeframe": self.timeframe,
            "seed": f"s{self.seed}" if self.seed else self.trial_id[-5:],
            "hash": self.config_hash[:6],
            "trial_id": self.trial_id,
            "env": self.env,
        }
        filled = pattern.format(**parts)
        return re.sub(r"-{2,}", "-", filled).strip("-") or self.trial_id


def check_run_name(pattern: str) -> None:
    """Raises ConfigurationError where `TrialIdentity.run_name` could not fill the pattern."""
    probe = TrialIdentity("id", "algorithm", "env", (), "", "", "hash")
    try:
        probe.run_name(pattern)
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise ConfigurationError(
            f"run_name={pattern!r} cannot be filled ({type(error).__name__}: {error}); it may use {{algorithm}}, "
            "{market}, {timeframe}, {seed}, {hash}, {trial_id} and {env}"
        ) from error


def identify_trial(
    trial_id: str, trainable: str, config: Mapping[str, Any], digest: str, tags: Mapping[str, str]
) -> TrialIdentity:
    """Reads a trial's identity off its configuration; the sweep's tags fill what the configuration lacks."""
    env_config = config.get("env_config")
    env_config = env_config if isinstance(env_config, Mapping) else {}
    seed = config.get("seed", env_config.get("seed"))
    env = config.get("env")
    return TrialIdentity(
        trial_id=trial_id,
        algorithm=trainable,
        env=str(env).rsplit(":", 1)[-1].rsplit(".", 1)[-1] if env else "",
        symbols=_symbols(env_config) or tuple(part for part in tags.get(names.TAG_SYMBOLS, "").split(",") if part),
        timeframe=str(env_config.get("timeframe", tags.get(names.TAG_TIMEFRAME, ""))),
        seed="" if seed is None else str(seed),
        config_hash=digest,
    )


def _symbols(env_config: Mapping[str, Any]) -> tuple[str, ...]:
    segments = env_config.get("segments")
    found: list[str] = []
    if isinstance(segments, Sequence):
        found = [str(segment["symbol"]) for segment in segments if isinstance(segment, Mapping) and "symbol" in segment]
    for key in ("symbol", "symbols"):
        given = env_config.get(key)
        if isinstance(given, str):
            found.append(given)
        elif isinstance(given, Sequence):
            found.extend(str(item) for item in given)
    return tuple(dict.fromkeys(found))


def default_config(trainable: str) -> dict[str, Any]:
    """Returns an algorithm's default configuration as Tune writes one to its files; empty where there is none."""
    from ray.air._internal.json import SafeFallbackEncoder
    from ray.tune.registry import get_trainable_cls

    try:
        algorithm: Any = get_trainable_cls(trainable)  # type: ignore[no-untyped-call]
        default = algorithm.get_default_config().to_dict()
    except Exception as error:  # noqa: BLE001 - an algorithm of the user's, not registered in this process
        _log.info("the defaults of %s are not known: %s", trainable, error)
        return {}
    return dict(without_addresses(json.loads(json.dumps(default, cls=SafeFallbackEncoder))))
