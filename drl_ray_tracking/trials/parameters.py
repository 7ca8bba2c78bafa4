"""Which parameters a person compares trials by: the search space, and what differs from the defaults."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final

from drl_ray_tracking.names import flatten, legal_metric_name

LONGEST_PARAM: Final = 250
# Differences from the defaults that say nothing about the experiment.
_NOT_PARAMETERS: Final = (
    "callbacks*",
    "simple_optimizer",  # RLlib sets it by itself
    "env_config/segments*",
    "_*",
    "*/_*",
    "evaluation_config/env_config/segments*",
)


def identifying_parameters(
    config: Mapping[str, Any],
    defaults: Mapping[str, Any],
    searched: Mapping[str, Any],
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
) -> dict[str, str]:
    """Returns the parameters a person compares trials by, as they are now.

    Args:
        config: the trial's configuration, as `fingerprint.jsonable` returned it.
        defaults: the algorithm's default configuration, likewise; empty where there is none.
        searched: the values the search space drew for this trial, likewise. PBT changes the configuration and
            leaves these as they were: only their names count, where the configuration has them.
        include, exclude: globs on slash-joined keys. No include means what identifies the trial, `("*",)`
            means the whole configuration.

    Returns:
        Slash-joined, legal names to texts: the search space, and whatever differs from the defaults.
    """
    known = dict(flatten(defaults))
    now = dict(flatten(config))
    wanted = dict(flatten(searched))
    parameters = {
        key: value
        for key, value in now.items()
        if (_matches(key, include) if include else known.get(key, _MISSING) != value)
        and (include or not _matches(key, _NOT_PARAMETERS))
    }
    parameters.update({key: now.get(key, value) for key, value in wanted.items() if not include})
    parameters = {key: value for key, value in parameters.items() if not _matches(key, exclude)}
    # MLflow has the same rule for the names of parameters as for those of metrics.
    return {legal_metric_name(key): _text(value) for key, value in parameters.items()}


def _matches(key: str, globs: Sequence[str]) -> bool:
    return any(fnmatchcase(key, glob) for glob in globs)


_MISSING: Final = object()


def _text(value: Any) -> str:
    """Writes a value as `str` does, and so as MLflow itself would: True, None, ['a', 'b']."""
    text = json.dumps(value, sort_keys=True) if isinstance(value, Mapping) else str(value)
    if len(text) <= LONGEST_PARAM:
        return text
    return f"{text[:200]}... sha256:{hashlib.sha256(text.encode()).hexdigest()[:12]}"
