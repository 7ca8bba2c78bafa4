"""Why a trial that did not fail ended, as far as Tune's hooks tell.

What can be told: a threshold of a `stop` mapping (it can be looked up), a trainable that returned (its last
result becomes `done` only afterwards), a trial removed while paused. What cannot: a result marked `done` below
every threshold may have been stopped by the scheduler, by a Stopper object, or by the trainable itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drl_ray_tracking import names


def stopped_by(trial: Any, result: Mapping[str, Any]) -> str:
    """Returns why this result is the trial's last, or '' where Tune has not said that it is.

    Args:
        trial: Tune's trial.
        result: the result as the hook gets it: Tune has marked it `done` by then.
    """
    if not result.get("done"):
        return ""
    criteria = getattr(trial, "stopping_criterion", None) or {}
    if criteria:
        flat = dict(names.flatten(result))
        for key, threshold in criteria.items():
            reached, bound = names.finite(flat.get(key)), names.finite(threshold)
            if reached is not None and bound is not None and reached >= bound:
                return names.END_CRITERION
    return names.END_STOPPED


def trial_ending(trial: Any, stopped: str) -> str:
    """Returns why a trial that did not fail is over.

    Args:
        trial: Tune's trial, at its end.
        stopped: what `stopped_by` returned for its last result.
    """
    if stopped:
        return stopped
    last = getattr(trial, "last_result", None) or {}
    return names.END_COMPLETED if last.get("done") else names.END_SCHEDULER
