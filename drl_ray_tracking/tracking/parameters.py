"""Which parameters a person compares trials by: the search space, and what differs from the defaults."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any, Final

from drl_ray_tracking.names import flatten, legal_metric_name

LONGEST_PARAM: Final = 250
# Differences from the defaults that say nothing about the experiment.
_NOT_PARAMETERS: Final = (
    "callbacks*",
    "env_config/segments*",
    "_*",
    "*/_*",
    "evaluation_config/env_config/segments*",
)


def identifying_parameters(
    config: Mapping[str, Any], defaults: Mapping[str, Any], searched: Mapping[str, Any]
) -> dict[str, str]:
    """Returns the parameters a person compares trials by.

    Args:
        config: the trial's configuration, as `fingerprint.jsonable` returned it.
        defaults: the algorithm's default configuration, likewise; empty where there is none.
        searched: the values the search space drew for this trial, likewise.

    Returns:
        Slash-joined, legal names to texts: the search space, and whatever differs from the defaults.
    """
    known = dict(flatten(defaults))
    parameters = {
        key: value
        for key, value in flatten(config)
        if known.get(key, _MISSING) != value and not any(fnmatchcase(key, p) for p in _NOT_PARAMETERS)
    }
    parameters.update(flatten(searched))
    # MLflow has the same rule for the names of parameters as for those of metrics.
    return {legal_metric_name(key): _text(value) for key, value in parameters.items()}


_MISSING: Final = object()


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    if len(text) <= LONGEST_PARAM:
        return text
    return f"{text[:200]}... sha256:{hashlib.sha256(text.encode()).hexdigest()[:12]}"
