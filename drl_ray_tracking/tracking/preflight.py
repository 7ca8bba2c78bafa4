"""Asks a store, before anything trains, whether it will take runs."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final, Literal

from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.tracking import courier_status
from drl_ray_tracking.tracking.mlflow_sink import MlflowSink, bounded_requests
from drl_ray_tracking.tracking.remedies import remedy
from drl_ray_tracking.tracking.sink import SinkRefusedError, SinkUnavailableError
from drl_ray_tracking.tracking.spool import Spool

_log = logging.getLogger(__name__)
_TIMEOUT_S: Final = 5.0
_VERDICT_WAIT_S: Final = 20.0


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
                f"the MLflow server at {tracking_uri} cannot be reached: {_first_line(error)}. What to do: "
                f"{remedy(error, tracking_uri)}."
            ) from error
        except SinkRefusedError as error:
            raise ConfigurationError(f"MLflow at {tracking_uri} refuses this sweep: {_first_line(error)}") from error


def wait_for_verdict(spool: Spool, tracking_uri: str, on_unreachable: Literal["spool", "fail"]) -> None:
    """Waits within bounds for what only the store could tell: the trials' actors have started, nothing has trained.

    Raises:
        ConfigurationError: the store refuses the sweep, or cannot be reached and `on_unreachable` is `fail`.
    """
    status = spool.wait_for(lambda now: now.phase != courier_status.STARTING, timeout_s=_VERDICT_WAIT_S)
    if status is not None and status.phase == courier_status.REFUSED:
        raise ConfigurationError(f"MLflow at {tracking_uri} refuses this sweep: {status.message}")
    if status is None or status.phase != courier_status.DELIVERING:
        said = status.message if status is not None else ""
        reason = f"{said}. What to do: {remedy(said, tracking_uri)}" if said else "the courier has not answered yet"
        if on_unreachable == "fail":
            raise ConfigurationError(
                f"MLflow at {tracking_uri} cannot be reached: {reason}. Or go on without it: "
                "on_unreachable='spool' delivers later."
            )
        _log.warning(
            "MLflow at %s cannot be reached (%s): results are kept in %s and delivered when it can",
            tracking_uri,
            reason,
            spool.directory,
        )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:300]
