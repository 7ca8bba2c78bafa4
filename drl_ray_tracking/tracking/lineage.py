"""What a trial goes on from, and whether it really learns with the hyperparameters it was given."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from drl_ray_tracking import names

_RATE: Final = "default_optimizer_learning_rate"


def donor_of(trial: Any) -> tuple[str, str]:
    """Returns the trial whose checkpoint this one goes on from and that checkpoint's path; empty for its own.

    PBT and PB2 hand a trial the donor's checkpoint together with the donor's last result.
    """
    resumed = trial.latest_checkpoint_result
    origin = str((resumed.metrics or {}).get("trial_id", "")) if resumed is not None else ""
    if origin in ("", trial.trial_id):
        return "", ""
    return origin, str(getattr(getattr(resumed, "checkpoint", None), "path", ""))


def configured_rate(config: Mapping[str, Any]) -> float | None:
    """Returns the configured learning rate; None for a schedule, which has no one value."""
    rate = config.get("lr")
    return None if isinstance(rate, bool) else names.finite(rate)


def learns_at_another_rate(result: Mapping[str, Any], configured: float | None) -> bool:
    """Tells whether a learner's optimizer has another learning rate than the configuration.

    A checkpoint carries the optimizer's state: a trial that PBT gave a new `lr` may go on with the donor's.
    Algorithms with several optimizers report none under this name and are never told apart.
    """
    learners = result.get(names.LEARNERS)
    if configured is None or not isinstance(learners, Mapping):
        return False
    found = [names.finite(module.get(_RATE)) for module in learners.values() if isinstance(module, Mapping)]
    return any(rate is not None and not math.isclose(rate, configured, rel_tol=1e-4) for rate in found)
