"""The RLlib callback: measures each episode on its env runner, merges exactly in the Algorithm process.

Must never hurt training: an exception in a callback kills an env runner, so every hook contains its own
errors, counts them (`capture/errors`) and says each kind once. No per-step hook.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, ParamSpec

from ray import cloudpickle
from ray.rllib.callbacks.callbacks import RLlibCallback

from drl_ray_tracking import names
from drl_ray_tracking.capture import transport
from drl_ray_tracking.capture.actions import SentActions
from drl_ray_tracking.capture.containment import Containment
from drl_ray_tracking.capture.environment import NOWHERE, Environment, VectorSlot
from drl_ray_tracking.capture.measured import Measured, Measurement, kpis
from drl_ray_tracking.capture.objective import Objective, lookup
from drl_ray_tracking.capture.series import series_columns, series_table, write_series
from drl_ray_tracking.capture.windows import one_per_window
from drl_ray_tracking.episodes.learning_curve import LearningCurve

_P = ParamSpec("_P")
_ERRORS: Final = tuple(names.CAPTURE_ERRORS.split("/"))


@dataclass(frozen=True)
class CaptureSettings:
    """What `instrument` was told; travels to every env runner inside the algorithm's configuration."""

    measurement: Measurement = field(default_factory=Measurement)
    objective: str | None = None
    write_series: bool = True
    evaluation_windows: int | None = None
    solved_return: float | None = None


def _contained(hook: Callable[_P, None]) -> Callable[_P, None]:
    @functools.wraps(hook)
    def guarded(*args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            hook(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - an error here would end the training
            capture: Any = args[0]
            capture._errors.note(hook.__name__, error)

    return guarded


class EpisodeCapture(RLlibCallback):
    """Attached by `instrument`; one instance lives in every env runner and one in the Algorithm process."""

    def __init__(self, settings: CaptureSettings) -> None:
        super().__init__()
        self._settings = settings
        self._errors = Containment()
        self._reported = 0
        self._finished: list[list[Any]] = []
        self._outbox: dict[str, list[Any]] = {}
        self._evaluated_in: int | None = None
        self._weights_step = 0
        self._trained = (-1, 0)

    # --- on the env runner ---------------------------------------------------------------------------

    def on_episode_end(
        self,
        *,
        episode: Any,
        prev_episode_chunks: Any = None,
        env_runner: Any = None,
        metrics_logger: Any = None,
        **kwargs: Any,
    ) -> None:
        """Measures a finished episode, or puts it aside; called by RLlib."""
        chunks = [*(prev_episode_chunks or ()), episode]
        if self._settings.measurement.reads_environment:  # before it moves on to its next episode
            environment = VectorSlot(kwargs["env"], kwargs.get("env_index", 0)) if "env" in kwargs else NOWHERE
            self._measure(chunks, environment, env_runner)
        else:
            self._finished.append(chunks)

    def on_sample_end(self, *, env_runner: Any = None, metrics_logger: Any = None, **kwargs: Any) -> None:
        """Sends what was measured since the last time; called by RLlib before it collects the metrics.

        Episodes are measured here, one after the other: between two steps of the environment each would cost
        several times as much, because nothing of ours is in the processor's caches then.
        """
        finished, self._finished = self._finished, []
        for chunks in finished:
            self._measure(chunks, NOWHERE, env_runner)
        self._send(metrics_logger)
        new = self._errors.count - self._reported
        if new:
            self._reported += new
            with contextlib.suppress(Exception):
                metrics_logger.log_value(_ERRORS, new, reduce="sum")

    @_contained
    def _measure(self, chunks: list[Any], environment: Environment, env_runner: Any) -> None:
        sent = SentActions.of(env_runner.config)
        measured, parts = self._settings.measurement.of(chunks, self._errors.note, environment, sent)
        self._outbox.setdefault(names.SUMMARIES, []).append(measured)
        if self._settings.write_series and env_runner.config.in_evaluation:
            series = [columns for part in parts if (columns := series_columns(*part)) is not None]
            if series:
                self._outbox.setdefault(names.SERIES, []).append((measured.key, series))

    @_contained
    def _send(self, metrics_logger: Any) -> None:
        outbox, self._outbox = self._outbox, {}
        for kind, items in outbox.items():
            transport.send(metrics_logger, kind, items, by_value=cloudpickle.dumps)

    # --- in the Algorithm process ----------------------------------------------------------------------

    @_contained
    def on_evaluate_start(self, *, algorithm: Any, metrics_logger: Any = None, **kwargs: Any) -> None:
        """Notes which weights are about to be scored: with parallel evaluation, the previous ones."""
        iteration, steps = self._trained
        if not algorithm.config.evaluation_parallel_to_training or iteration != algorithm.iteration:
            steps = metrics_logger.peek((names.ENV_RUNNERS, names.LIFETIME_STEPS), default=steps)
        self._weights_step = int(steps)

    @_contained
    def on_evaluate_end(
        self, *, algorithm: Any, metrics_logger: Any = None, evaluation_metrics: dict[str, Any], **kwargs: Any
    ) -> None:
        """Turns the summaries of an evaluation into numbers in its result."""
        runners = evaluation_metrics.get(names.ENV_RUNNERS)
        if not isinstance(runners, dict):
            return
        received = transport.take(runners)
        # RLlib keeps what it has shown and repeats it in the next result; it also goes into checkpoints.
        metrics_logger.delete(names.EVALUATION, names.ENV_RUNNERS, names.TRANSPORT, key_error=False)
        if not received.get(names.SUMMARIES) and _nobody_evaluated(algorithm):
            return
        iteration = algorithm.iteration + 1
        self._evaluated_in = iteration
        evaluation_metrics[names.WEIGHTS_STEP] = self._weights_step
        measured: list[Measured] = transport.unpack(received.get(names.SUMMARIES, []))
        windows = one_per_window(measured, expected=self._settings.evaluation_windows)
        evaluation_metrics["windows_repeated"] = windows.repeated
        evaluation_metrics["windows_missing"] = windows.missing
        self._enter(runners, kpis(windows.episodes))
        series = dict(transport.unpack(received.get(names.SERIES, [])))
        bars = [columns for episode in windows.episodes for columns in series.get(episode.key, ())]
        if bars and _evaluation_due(algorithm, iteration):
            table = series_table(bars, iteration=iteration, step=self._weights_step)
            write_series(algorithm, table, iteration=iteration)

    def on_train_result(
        self, *, algorithm: Any, metrics_logger: Any = None, result: dict[str, Any], **kwargs: Any
    ) -> None:
        """Turns the summaries of an iteration into numbers, drops stale evaluations, sets the objective."""
        iteration = result.get(names.ITERATION, 0)
        fresh = self._evaluated_in == iteration and _evaluation_due(algorithm, iteration)
        result[names.EVALUATED] = fresh
        # Contained apart, step by step: Tune ends the sweep over a missing objective, so nothing may keep it out.
        self._merge_training(result)
        self._drop_stale(result, fresh=fresh)
        self._follow_learning(result, metrics_logger)
        self._set_objective(result, metrics_logger, evaluated=fresh)
        self._trained = (iteration, int(names.finite(result.get(names.LIFETIME_STEPS)) or 0))
        self._report_errors(result)

    @_contained
    def _merge_training(self, result: dict[str, Any]) -> None:
        runners = result.get(names.ENV_RUNNERS)
        if not isinstance(runners, dict):
            return
        measured: list[Measured] = transport.unpack(transport.take(runners).get(names.SUMMARIES, []))
        if measured:
            self._enter(runners, kpis(measured))
            sources = {item.source for item in measured} - {""}
            if sources:
                result[names.TRADING_SOURCE] = "; ".join(sorted(sources))

    @_contained
    def _drop_stale(self, result: dict[str, Any], *, fresh: bool) -> None:
        evaluation = result.get(names.EVALUATION)
        if fresh or not isinstance(evaluation, dict):
            return
        evaluation.pop(names.ENV_RUNNERS, None)  # offline evaluations stand beside it and are the user's
        if not evaluation:
            del result[names.EVALUATION]

    @_contained
    def _follow_learning(self, result: dict[str, Any], metrics_logger: Any) -> None:
        """Follows the mean training return; its state is carried like the objective's."""
        carried = result.pop(names.CURVE, None)
        curve = LearningCurve.from_text(carried[-1] if isinstance(carried, list) and carried else carried)
        entropy, loss_is_finite = learner_health(result.get(names.LEARNERS))
        curve = curve.update(
            names.finite(result.get(names.LIFETIME_STEPS)) or 0.0,
            names.finite(lookup(result, f"{names.ENV_RUNNERS}/episode/return_mean")),
            entropy=entropy,
            loss_is_finite=loss_is_finite,
            threshold=self._settings.solved_return,
        )
        result[names.STABILITY] = curve.compute()
        metrics_logger.log_value(names.CURVE, curve.to_text(), reduce="item_series", window=1)

    @_contained
    def _set_objective(self, result: dict[str, Any], metrics_logger: Any, *, evaluated: bool) -> None:
        """The carry lives in RLlib's metrics state, which is part of a checkpoint; attributes are not."""
        carried = Objective.unpack(result.pop(names.CARRY, None))
        path = self._settings.objective
        if path is None:
            return
        value = lookup(result, path)
        if path.startswith(f"{names.EVALUATION}/"):
            measured = evaluated
        else:
            trained = lookup(result, f"{names.ENV_RUNNERS}/episode/count")
            measured = names.finite(value) is not None or bool(trained)
        objective = Objective.next(carried, measured=measured, value=value)
        names.nest(result, path, objective.value)
        result[names.OBJECTIVE_STATE] = objective.state
        metrics_logger.log_value(names.CARRY, objective.pack(), reduce="item_series", window=1)

    @_contained
    def _report_errors(self, result: dict[str, Any]) -> None:
        new = self._errors.count - self._reported
        if new:
            self._reported += new
            path = f"{names.ENV_RUNNERS}/{names.CAPTURE_ERRORS}"
            names.nest(result, path, (names.finite(lookup(result, path)) or 0.0) + new)

    def _enter(self, group: dict[str, Any], values: Iterable[tuple[str, float]]) -> None:
        for path, value in values:
            try:
                names.nest(group, path, value)
            except (AttributeError, TypeError) as error:  # a user's own metric of that name is in the way
                self._errors.note(f"result key {path}", error)


def learner_health(learners: Any) -> tuple[float | None, bool]:
    """Returns the mean policy entropy over modules (None where not reported), and whether all losses are finite."""
    entropies, losses_are_finite = [], True
    for module, reported in learners.items() if isinstance(learners, dict) else ():
        if module.startswith("__") or not isinstance(reported, dict):
            continue  # `__all_modules__` is no module
        if not any(names.finite(value) is not None for key, value in reported.items() if not key.endswith("_lifetime")):
            continue  # not updated in this iteration: RLlib shows NaN then
        entropy = names.finite(reported.get("entropy"))
        if entropy is not None:
            entropies.append(entropy)
        losses = (value for key, value in reported.items() if key.endswith("loss"))
        losses_are_finite = losses_are_finite and all(names.finite(value) is not None for value in losses)
    return (sum(entropies) / len(entropies) if entropies else None), losses_are_finite


def _evaluation_due(algorithm: Any, iteration: int) -> bool:
    """RLlib's own rule; an evaluation by hand between two iterations belongs to neither."""
    interval = algorithm.config.evaluation_interval
    return bool(interval) and iteration % interval == 0


def _nobody_evaluated(algorithm: Any) -> bool:
    """All evaluation runners are down: RLlib shows the last evaluation again."""
    group = algorithm.eval_env_runner_group
    return group is not None and group.num_remote_env_runners() > 0 and not group.num_healthy_remote_workers()
