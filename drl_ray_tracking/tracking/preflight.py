"""Asks a store, before anything trains, whether it will take runs."""

from __future__ import annotations

from collections.abc import Mapping

from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.tracking.mlflow_sink import MlflowSink, bounded_requests
from drl_ray_tracking.tracking.sink import SinkRefusedError, SinkUnavailableError

_TIMEOUT_S = 5.0


def check_store(tracking_uri: str, experiment: str, credentials: Mapping[str, str] | None = None) -> None:
    """Opens the experiment, creating it where it does not exist.

    A SQLite file needs no asking: its path was checked when the URI was resolved, and making a new one
    takes seconds that the courier spends while the trials start.

    Args:
        tracking_uri: the store, free of credentials.
        experiment: its name.
        credentials: variables that MLflow reads, as `resolve_target` found them in the URI.

    Raises:
        ConfigurationError: the server cannot be reached within a few seconds, or refuses.
    """
    if tracking_uri.startswith("sqlite"):
        return
    with bounded_requests(_TIMEOUT_S, credentials):
        try:
            MlflowSink(tracking_uri).open_experiment(experiment, None, None)
        except SinkUnavailableError as error:
            raise ConfigurationError(
                f"the MLflow server at {tracking_uri} cannot be reached: {_first_line(error)}. Start it, correct "
                "tracking.uri, or set `offline: true` under tracking to train now and deliver later."
            ) from error
        except SinkRefusedError as error:
            raise ConfigurationError(f"MLflow at {tracking_uri} refuses this sweep: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:300]
