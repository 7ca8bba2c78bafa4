"""The RLlib callback: measures each episode on its env runner, merges exactly in the Algorithm process.

Must never hurt training: an exception in a callback kills an env runner, so every hook contains its own
errors, counts them (`capture/errors`) and says each kind once. No per-step hook.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ParamSpec

from ray.rllib.callbacks.callbacks import RLlibCallback

from drl_ray_tracking import names
from drl_ray_tracking.capture import transport
from drl_ray_tracking.capture.objective import Objective, lookup
from drl_ray_tracking.capture.records import record_of
from drl_ray_tracking.capture.series import series_columns, series_table, write_series
from drl_ray_tracking.capture.sources import TradingSource, WhereTraded
from drl_ray_tracking.capture.steps import EpisodeSteps, steps_of
from drl_ray_tracking.capture.windows import Measured, one_per_window
from drl_ray_tracking.episodes import Conventions, EpisodeMetric, EpisodeSummary
from drl_ray_tracking.episodes.summary import merge_all

_log = logging.getLogger(__name__)
_P = ParamSpec("_P")


@dataclass(frozen=True)
class CaptureSettings:
    """What `instrument` was told; travels to every env runner inside the algorithm's configuration."""

    source: TradingSource = field(default_factory=WhereTraded)
    metrics: tuple[EpisodeMetric[Any], ...] = ()
    conventions: Conventions | None = None
    objective: str | None = None
    write_series: bool = True
    evaluation_windows: int | None = None


def _contained(hook: Callable[_P, None]) -> Callable[_P, None]:
    @functools.wraps(hook)
    def guarded(*args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            hook(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - an error here would kill the env runner
            capture: Any = args[0]
            capture._count_error(hook.__name__, error, kwargs.get("metrics_logger"))

    return guarded


class EpisodeCapture(RLlibCallback):
    """Attached by `instrument`; one instance lives in every env runner and one in the Algorithm process."""

    def __init__(self, settings: CaptureSettings) -> None:
        super().__init__()
        self._settings = settings
        self._said: set[str] = set()
        self._evaluated = False
        self._weights_step = 0
        self._last_step = 0

    # --- on the env runner ---------------------------------------------------------------------------

    @_contained
    def on_episode_end(
        self,
        *,
        episode: Any,
        prev_episode_chunks: Any = None,
        env_runner: Any = None,
        metrics_logger: Any = None,
        **kwargs: Any,
    ) -> None:
        """Measures a finished episode and sends its summary; called by RLlib."""
        steps = steps_of([*(prev_episode_chunks or ()), episode])
        record = record_of(steps, self._settings.source, self._settings.conventions)
        measured = Measured(EpisodeSummary.of(record, metrics=self._settings.metrics), window_of(steps))
        transport.send(metrics_logger, names.SUMMARIES, measured)
        if self._settings.write_series and env_runner.config.in_evaluation:
            columns = series_columns(record, steps)
            if columns is not None:
                transport.send(metrics_logger, names.SERIES, (measured.key, columns))

    # --- in the Algorithm process ----------------------------------------------------------------------

    @_contained
    def on_evaluate_start(self, *, algorithm: Any, metrics_logger: Any = None, **kwargs: Any) -> None:
        """Notes which weights are about to be scored: with parallel evaluation, the previous ones."""
        if algorithm.config.evaluation_parallel_to_training:
            self._weights_step = self._last_step
        else:
            steps = metrics_logger.peek((names.ENV_RUNNERS, names.LIFETIME_STEPS), default=self._last_step)
            self._weights_step = int(steps)

    @_contained
    def on_evaluate_end(
        self, *, algorithm: Any, metrics_logger: Any = None, evaluation_metrics: dict[str, Any], **kwargs: Any
    ) -> None:
        """Turns the summaries of an evaluation into numbers in its result."""
        self._evaluated = True
        runners = evaluation_metrics.get(names.ENV_RUNNERS)
        if not isinstance(runners, dict):
            return
        received = transport.receive(runners)
        # RLlib keeps what it has shown and repeats it in the next result; it also goes into checkpoints.
        metrics_logger.delete(names.EVALUATION, names.ENV_RUNNERS, names.TRANSPORT, key_error=False)
        measured = received.get(names.SUMMARIES, [])
        windows = one_per_window(measured, expected=self._settings.evaluation_windows)
        _put(runners, merge_all(windows.summaries).compute())
        evaluation_metrics[names.WEIGHTS_STEP] = self._weights_step
        evaluation_metrics["windows_repeated"] = windows.repeated
        evaluation_metrics["windows_missing"] = windows.missing
        episodes = dict(received.get(names.SERIES, []))
        series = [episodes[key] for key in windows.keys if key in episodes]
        if series:
            iteration = algorithm.iteration + 1
            table = series_table(series, iteration=iteration, step=self._weights_step)
            write_series(algorithm, table, iteration=iteration)

    @_contained
    def on_train_result(
        self, *, algorithm: Any, metrics_logger: Any = None, result: dict[str, Any], **kwargs: Any
    ) -> None:
        """Turns the summaries of an iteration into numbers, drops stale evaluations, sets the objective."""
        runners = result.get(names.ENV_RUNNERS)
        measured: list[Measured] = []
        if isinstance(runners, dict):
            measured = transport.receive(runners).get(names.SUMMARIES, [])
            if measured:
                _put(runners, merge_all([item.summary for item in measured]).compute())
        interval = algorithm.config.evaluation_interval
        due = bool(interval) and result.get(names.ITERATION, 0) % interval == 0
        fresh = self._evaluated and due
        self._evaluated = False
        if not fresh:
            result.pop(names.EVALUATION, None)
        result[names.EVALUATED] = fresh
        self._set_objective(result, metrics_logger, evaluated=fresh, trained=bool(measured))
        self._last_step = int(result.get(names.LIFETIME_STEPS, 0))

    def _set_objective(self, result: dict[str, Any], metrics_logger: Any, *, evaluated: bool, trained: bool) -> None:
        """The carry lives in RLlib's metrics state, which is part of a checkpoint; attributes are not."""
        carried = Objective.unpack(result.pop(names.CARRY, None))
        path = self._settings.objective
        if path is None:
            return
        measured = evaluated if path.startswith(f"{names.EVALUATION}/") else trained
        objective = Objective.next(carried, measured=measured, value=lookup(result, path))
        names.nest(result, path, objective.value)
        result[names.OBJECTIVE_STATE] = objective.state
        metrics_logger.log_value(names.CARRY, objective.pack(), reduce="item_series", window=1)

    def _count_error(self, where: str, error: Exception, metrics_logger: Any) -> None:
        kind = f"{where}/{type(error).__name__}"
        if kind not in self._said:
            self._said.add(kind)
            _log.error("capture failed in %s, training goes on: %s", where, error, exc_info=error)
        if metrics_logger is not None and where == "on_episode_end":
            metrics_logger.log_value(tuple(names.CAPTURE_ERRORS.split("/")), 1, reduce="sum")


def window_of(steps: EpisodeSteps) -> str:
    """Returns the key of the market window an episode ran over, or '' where the env does not say."""
    last = steps.infos[-1] if steps.infos else {}
    window = last.get("window")
    if window in (None, "", "random"):
        return ""
    return "|".join(str(last.get(part, "")) for part in ("symbol", "split", "fold", "window"))


def _put(group: dict[str, Any], values: dict[str, float]) -> None:
    """Enters KPIs; a user's own go under `user/` unless they chose one of our groups."""
    for path, value in values.items():
        known = path.split("/", 1)[0] in names.CAPTURED_GROUPS
        names.nest(group, path if known else f"{names.USER_GROUP}/{path}", value)
