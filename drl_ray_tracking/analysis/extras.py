"""What this package can use but does not need: one clear error where it is not installed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from drl_ray_tracking.errors import ConfigurationError


def extra(module: str, name: str, what: str) -> Any:
    """Returns an optional module.

    Args:
        module: to import.
        name: of the extra that installs it.
        what: needs it, for the error.

    Raises:
        ConfigurationError: it is not installed; says what installs it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise ConfigurationError(
            f"{what} needs {module.partition('.')[0]}, which is not installed ({error}): "
            f"`pip install 'drl-ray-tracking[{name}]'`"
        ) from error
