"""What a person sees while a sweep runs: trials, best value, steps, and how far delivery is behind."""

from __future__ import annotations

import time
from typing import Any, Final

from ray.tune import Callback
from rich.console import Console

from drl_ray_tracking import names
from drl_ray_tracking.tracking.callback import MLflowTrackingCallback

_EVERY_TTY_S: Final = 1.0
_EVERY_LOG_S: Final = 15.0


class SweepProgress(Callback):
    """Prints one status line: rewritten in a terminal, a new line now and then in a log."""

    def __init__(self, console: Console, tracking: MLflowTrackingCallback, *, metric: str, mode: str) -> None:
        self._console = console
        self._tracking = tracking
        self._path = names.tune_path(metric)
        self._label = names.mlflow_name(metric)
        self._sign = 1.0 if mode == "max" else -1.0
        self._best: float | None = None
        self._steps: dict[str, int] = {}
        self._total: int | None = None
        self._started = time.monotonic()
        self._printed = 0.0
        self._open = 0

    @property
    def unfinished(self) -> bool:
        """Whether trials were still to train when Tune's loop ended: it returns after SIGINT as at the end.

        Tune's own trials do not say it: cleaning up marks those that ran as terminated.
        """
        return self._open > 0

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its callbacks; a terminal and an open journal cannot be.
        return {"_path": self._path, "_label": self._label, "_sign": self._sign}

    def setup(self, *args: Any, total_num_samples: int | None = None, **info: Any) -> None:
        """Learns how many trials there will be."""
        self._total = total_num_samples

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Takes a result into the line."""
        self._steps[trial.trial_id] = int(result.get(names.LIFETIME_STEPS) or 0)
        value = names.finite(dict(names.flatten(result)).get(self._path))
        if value is not None and (self._best is None or self._sign * value > self._sign * self._best):
            self._best = value
        self._show(trials)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Keeps the clock going between results."""
        self._open = sum(not trial.is_finished() for trial in trials)
        self._show(trials)

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """Prints the last line whole."""
        self._show(trials, last=True)

    def _show(self, trials: list[Any], *, last: bool = False) -> None:
        now = time.monotonic()
        terminal = self._console.is_terminal
        if not last and now - self._printed < (_EVERY_TTY_S if terminal else _EVERY_LOG_S):
            return
        self._printed = now
        finished = sum(trial.is_finished() for trial in trials)
        running = sum(trial.status == "RUNNING" for trial in trials)
        best = "none yet" if self._best is None else f"{self._best:.4g}"
        spool = self._tracking.spool
        status = spool.status() if spool is not None and not last else None
        behind = f"  delivery {status.lag_s:.0f} s behind ({status.phase})" if status is not None else ""
        line = (
            f"{now - self._started:5.0f} s  trials {finished}/{self._total or len(trials)} done, {running} running  "
            f"steps {sum(self._steps.values()):,}  best {self._label} {best}{behind}"
        )
        self._console.print(line, end="\r" if terminal and not last else "\n", highlight=False, soft_wrap=True)
