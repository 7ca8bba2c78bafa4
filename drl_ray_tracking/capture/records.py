"""Makes an EpisodeRecord of finished steps: the one place where capture meets the exact statistics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np

from drl_ray_tracking.capture.sources import TradingSource
from drl_ray_tracking.capture.steps import EpisodeSteps
from drl_ray_tracking.episodes import Conventions, EpisodeRecord

_LABELS: Final = ("symbol", "split", "fold", "window")
_COMPONENTS: Final = "reward_components"


def record_of(steps: EpisodeSteps, source: TradingSource, conventions: Conventions | None) -> EpisodeRecord:
    """Returns the record of an episode.

    Args:
        steps: the finished episode.
        source: where its trading columns come from.
        conventions: how returns are judged; None takes `periods_per_year` from the infos.

    Raises:
        EpisodeError: the columns contradict each other, or a required one is missing.
    """
    columns = source.read(steps)
    labels = {**_labels(steps), **steps.labels}
    trading: dict[str, Any] = {}
    if columns is not None:
        labels.update(columns.labels)
        trading = {
            "equity": columns.equity,
            "position": columns.position,
            "price": columns.price,
            "fee": columns.fee,
            "timestamp": columns.timestamp,
            "traded": columns.traded,
        }
        if conventions is None:
            conventions = Conventions(periods_per_year=columns.periods_per_year)
        elif conventions.periods_per_year is None:
            conventions = replace(conventions, periods_per_year=columns.periods_per_year)
    return EpisodeRecord(
        episode_return=float(steps.rewards.sum()),
        length=steps.length,
        terminated=steps.terminated,
        truncated=steps.truncated,
        actions=_actions(steps),
        reward_components=_components(steps),
        labels=labels,
        conventions=conventions or Conventions(),
        **trading,
    )


def _labels(steps: EpisodeSteps) -> dict[str, str]:
    last = steps.infos[-1] if steps.infos else {}
    return {key: str(last[key]) for key in _LABELS if last.get(key) not in (None, "")}


def _actions(steps: EpisodeSteps) -> np.ndarray | None:
    """Returns (T,) integers or (T, d) floats; None for actions that are no arrays (Dict, Tuple spaces)."""
    if not len(steps.actions) or isinstance(steps.actions[0], (Mapping, tuple)):
        return None
    actions = np.asarray(steps.actions)
    if actions.dtype.kind in "iu" and actions.ndim == 1:
        return actions
    if actions.dtype.kind in "fiu":
        return actions.reshape(len(actions), -1).astype(np.float64)
    return None


def _components(steps: EpisodeSteps) -> dict[str, float]:
    totals: dict[str, float] = {}
    for info in steps.infos[1:]:
        parts = info.get(_COMPONENTS)
        if isinstance(parts, Mapping):
            for name, value in parts.items():
                totals[str(name)] = totals.get(str(name), 0.0) + float(value)
    return totals
