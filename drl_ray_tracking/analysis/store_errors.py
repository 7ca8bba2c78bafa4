"""What goes wrong with a tracking store, in this package's words, and soon."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from drl_ray_tracking.errors import ConfigurationError, TrackingError


@contextmanager
def store_errors(uri: str) -> Iterator[None]:
    """Turns MLflow's and the network's errors into a ConfigurationError, and fails in seconds, not minutes.

    MLflow's seven retries keep one call hanging for four minutes; it reads their number from the environment at
    every request. A number the user set stays.
    """
    settings = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
    ours = [key for key in settings if key not in os.environ]
    os.environ.update({key: settings[key] for key in ours})
    try:
        yield
    except TrackingError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".replace(uri, _shown(uri))
        raise ConfigurationError(
            f"the tracking store {_shown(uri)} failed: {reason}. Is it up and the address right?"
        ) from error
    finally:
        for key in ours:
            os.environ.pop(key, None)


def _shown(uri: str) -> str:
    return re.sub(r"//[^/@]*@", "//***@", uri)
