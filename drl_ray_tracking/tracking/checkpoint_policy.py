"""What a sweep wants of its checkpoints: which are uploaded, how many are kept, and by what score."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from drl_ray_tracking import names
from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.tracking import events
from drl_ray_tracking.trials.metrics import result_step
from drl_ray_tracking.trials.place import storage_uri

_log = logging.getLogger(__name__)
_OF_EVALUATIONS: Final = ("eval/", f"{names.EVALUATION}/")  # by either vocabulary
Upload = Literal["none", "last", "best", "all"]


@dataclass(frozen=True)
class CheckpointWishes:
    """The checked keywords `checkpoints`, `keep_checkpoints`, `checkpoint_score` and `checkpoint_mode`."""

    upload: Upload = "none"
    keep: int | None = None
    score: str | None = None
    mode: Literal["max", "min"] = "max"

    def __post_init__(self) -> None:
        if self.upload not in get_args(Upload):
            raise ConfigurationError(f"checkpoints={self.upload!r} must be one of {', '.join(get_args(Upload))}")
        if self.keep is not None and (not isinstance(self.keep, int) or self.keep < 1):
            raise ConfigurationError(f"keep_checkpoints={self.keep!r} must be 1 or more, or None for all")
        if self.mode not in ("max", "min"):
            raise ConfigurationError(f"checkpoint_mode={self.mode!r} must be 'max' or 'min'")

    def policy(self) -> events.CheckpointPolicy:
        """Returns what the courier is told: one `last` or `best` is kept unless more are asked for."""
        keep = self.keep if self.upload == "all" else self.keep or 1
        return events.CheckpointPolicy(upload=self.upload, keep=keep)

    def resolved(self, trial: Any) -> CheckpointWishes:
        """Returns these wishes with a score, Tune's own where none was given, and says where Tune keeps too few.

        Args:
            trial: the sweep's first trial.

        Raises:
            ConfigurationError: the best are wanted, and nothing says by what.
        """
        if self.upload == "none":
            return self
        tunes = trial.run_metadata.checkpoint_manager.checkpoint_config
        wishes = self
        if self.score is None and tunes.checkpoint_score_attribute:
            order = tunes.checkpoint_score_order
            wishes = CheckpointWishes(self.upload, self.keep, tunes.checkpoint_score_attribute, order)
        if wishes.upload == "best" and wishes.score is None:
            raise ConfigurationError(
                "checkpoints='best' needs a score: checkpoint_score='eval/trading/sharpe', say, or Tune's own "
                "CheckpointConfig(checkpoint_score_attribute=...)"
            )
        wishes._compare_with(tunes, trial)
        return wishes

    def _compare_with(self, tunes: Any, trial: Any) -> None:
        kept, wanted = tunes.num_to_keep, self.policy()["keep"]
        if kept is not None:
            by_score = tunes.checkpoint_score_attribute is not None
            if self.upload == "all" and (wanted is None or wanted > kept):
                _log.warning(
                    "checkpoints='all': Tune keeps %d per trial (num_to_keep) and may delete others before they are "
                    "uploaded",
                    kept,
                )
            elif self.upload == "best" and (not by_score or kept < (wanted or 1)):
                _log.warning(
                    "checkpoints='best': Tune keeps %d per trial, %s: the best may be deleted before the trial ends. "
                    "CheckpointConfig(num_to_keep=%d, checkpoint_score_attribute=%r) keeps what is wanted",
                    kept,
                    "by its own score" if by_score else "the newest",
                    max(kept, wanted or 1),
                    names.tune_path(self.score or ""),
                )
        is_algorithm = hasattr(trial.get_trainable_cls(), "get_default_config")  # functions save when they like
        if is_algorithm and not tunes.checkpoint_frequency and not tunes.checkpoint_at_end:
            _log.warning(
                "checkpoints=%r: Tune saves none (CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False))",
                self.upload,
            )

    def event(self, name: str, saved: Any, last: events.Result | None) -> events.Checkpoint:
        """Returns what the journal says of a checkpoint.

        Args:
            name: the run's name.
            saved: Tune's `latest_checkpoint_result`.
            last: the trial's last published result. Its values are the checkpoint's where it is of the same step;
                Tune's own copy may differ from what was published (`done`), and would be a second value. With
                parallel evaluation its evaluation is of earlier weights, and not the checkpoint's.
        """
        where, step = saved.checkpoint, result_step(saved.metrics)
        metrics = last["metrics"] if last is not None and last["step"] == step else {}
        if _scored_weights(saved.metrics) not in (None, step):
            metrics = {key: value for key, value in metrics.items() if not key.startswith(_OF_EVALUATIONS)}
        payload = events.Checkpoint(
            name=name,
            uri=storage_uri(where.filesystem, where.path),
            step=step,
            iteration=int(saved.metrics.get(names.ITERATION, 0)),
            metrics=metrics,
        )
        if self.score is not None:
            value = names.finite(dict(names.flatten(saved.metrics)).get(names.tune_path(self.score)))
            if value is not None:
                payload["score"] = value if self.mode == "max" else -value
        return payload


def _scored_weights(result: Mapping[str, Any]) -> float | None:
    """Returns the env steps of the weights that a result's evaluation scored; None without one."""
    evaluation = result.get(names.EVALUATION)
    return names.finite(evaluation.get(names.WEIGHTS_STEP)) if isinstance(evaluation, Mapping) else None
