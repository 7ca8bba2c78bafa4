"""Reads a YAML file that is a mapping; what is wrong with it is said in one line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from drl_ray_tracking.errors import ConfigurationError


def read_mapping(path: Path, what: str = "configuration", of: str = "keys") -> Mapping[str, Any]:
    """Returns what a file holds.

    Args:
        path: the file.
        what: names the file's kind in an error.
        of: names what the mapping is of in an error.

    Raises:
        ConfigurationError: no such file, no YAML, or no mapping.
    """
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"the {what} {path} cannot be read: {error.strerror or error}") from error
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(given, Mapping):
        raise ConfigurationError(f"{path} holds {type(given).__name__}, a mapping of {of} is expected")
    return given
