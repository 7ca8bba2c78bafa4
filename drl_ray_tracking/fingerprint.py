"""Canonical JSON of a configuration and its hash: equal in every process, whoever computes them."""

from __future__ import annotations

import enum
import functools
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from fnmatch import fnmatchcase
from pathlib import PurePath
from typing import Any, Final

from drl_ray_tracking.names import flatten

# What two runs of one configuration may differ in: seed, data and its windows, paths, resources, numbers
# of processes, and this package's own settings. Matched against each part of a slash-joined key.
_NOT_IDENTITY: Final = (
    "seed",
    "seeds",
    "data",
    "data_digest",
    "dataset*",
    "segment*",
    "symbol*",
    "split",
    "fold*",
    "window_id",
    "worker_index",
    "num_workers",
    "*_path",
    "*_dir",
    "*path",
    "num_*env_runners",
    "evaluation_num_env_runners",
    "num_envs_per_env_runner",
    "evaluation_*duration*",
    "evaluation_config",
    "num_learners",
    "num_cpus*",
    "num_gpus*",
    "*_resources*",
    "local_gpu_idx",
    "callbacks*",
    "simple_optimizer",  # RLlib resolves it by itself
    "__std*_file__",
    "log_level",
    "log_gradients",
    "log_sys_usage",
    "logger_*",
    "metrics_*",
    "min_*_per_iteration",
    "*timeout_s",
    "restart_failed_*",
    "max_num_*_restarts",
    "delay_between_*",
    "tracking*",
)


def jsonable(value: Any) -> Any:
    """Returns plain JSON that is the same in every process: no address, no order of a set, no NaN.

    Code objects become `module:qualname`, arrays their shape and a digest, other objects their type.
    """
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, enum.Enum):
        return f"{type(value).__name__}.{value.name}"
    if isinstance(value, Mapping):
        return {_key(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((jsonable(item) for item in value), key=lambda item: json.dumps(item, sort_keys=True))
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, (bytes, bytearray)):
        return {"bytes": len(value), "sha256": hashlib.sha256(value).hexdigest()[:16]}
    if isinstance(value, functools.partial):
        return {
            "partial": jsonable(value.func),
            "args": jsonable(value.args),
            "keywords": jsonable(value.keywords),
        }
    if hasattr(value, "tobytes") and hasattr(value, "shape"):
        return _array(value)
    if is_dataclass(value) and not isinstance(value, type):
        members = {field.name: jsonable(getattr(value, field.name)) for field in fields(value)}
        return {"__type__": type(value).__qualname__, **members}
    name = getattr(value, "__qualname__", None)
    if name is not None:
        return f"{getattr(value, '__module__', '?')}:{name}"
    return f"{type(value).__module__}:{type(value).__qualname__}"


def _key(key: Any) -> str:
    if isinstance(key, str):
        return key
    plain = jsonable(key)
    return plain if isinstance(plain, str) else json.dumps(plain, sort_keys=True)


def _array(value: Any) -> Any:
    if value.shape == ():
        return jsonable(value.item())
    if value.dtype.hasobject:  # its bytes are addresses
        return jsonable(value.tolist())
    digest = hashlib.sha256(value.tobytes()).hexdigest()[:16]
    return {"shape": list(value.shape), "dtype": str(value.dtype), "sha256": digest}


def config_hash(config: Mapping[str, Any]) -> str:
    """Returns 12 hexadecimal digits that two trials share when only seed, data or resources differ.

    Args:
        config: the trial's configuration as `jsonable` returned it.
    """
    kept = {key: value for key, value in flatten(config) if not _excluded(key)}
    text = json.dumps(kept, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@functools.lru_cache(maxsize=8192)  # the same hundreds of keys with every trial
def _excluded(key: str) -> bool:
    return any(fnmatchcase(part, pattern) for part in key.split("/") for pattern in _NOT_IDENTITY)
