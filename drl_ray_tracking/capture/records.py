"""Makes an EpisodeRecord of finished steps: the one place where capture meets the exact statistics.

A trading source or a reward component that fails costs its own part, not the episode: dropping the
episodes that could not be read would bias the statistics of all the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Any, Final

import numpy as np

from drl_ray_tracking import names
from drl_ray_tracking.capture.sources import TradingColumns, TradingSource
from drl_ray_tracking.capture.steps import EpisodeSteps
from drl_ray_tracking.episodes import Conventions, EpisodeRecord
from drl_ray_tracking.errors import EpisodeError

OnError = Callable[[str, Exception], None]

_LABELS: Final = ("symbol", "split", "fold", "window")
_COMPONENTS: Final = "reward_components"


def record_of(
    steps: EpisodeSteps, source: TradingSource, conventions: Conventions | None, on_error: OnError
) -> EpisodeRecord:
    """Returns the record of an episode.

    Args:
        steps: the finished episode.
        source: where its trading columns come from.
        conventions: how returns are judged; None takes `periods_per_year` from the infos.
        on_error: is told where and why a part had to be left out.
    """
    plain: dict[str, Any] = {
        "episode_return": float(steps.rewards.sum()),
        "length": steps.length,
        "terminated": steps.terminated,
        "truncated": steps.truncated,
        "actions": _actions(steps),
        "reward_components": _components(steps, on_error),
        "labels": {**_labels(steps), **steps.labels},
        "conventions": conventions or Conventions(),
    }
    try:
        columns = source.read(steps)
        if columns is not None:
            for problem in getattr(columns, "problems", ()):
                on_error("trading source", EpisodeError(problem))
            return EpisodeRecord(**(plain | _trading(columns, plain["labels"], conventions)))
    except Exception as error:  # noqa: BLE001 - a user's source may raise anything
        on_error("trading source", error)
    return EpisodeRecord(**plain)


def whole_of(agents: Sequence[EpisodeRecord], *, length: int, terminated: bool, truncated: bool) -> EpisodeRecord:
    """Returns the record of a multi-agent episode as a whole.

    Its return and reward components are the sums over its agents, its length counts environment steps. It
    has no actions and trades nothing: pooling the agents' bars would count each bar of a market they share
    once per agent. Labels are those on which all agents agree.
    """
    components: dict[str, float] = {}
    for record in agents:
        for name, value in record.reward_components.items():
            components[name] = components.get(name, 0.0) + value
    shared = set.intersection(*(set(record.labels.items()) for record in agents)) if agents else set()
    return EpisodeRecord(
        episode_return=sum(record.episode_return for record in agents),
        length=length,
        terminated=terminated,
        truncated=truncated,
        reward_components=components,
        labels={key: value for key, value in shared if key in _LABELS},
    )


def _trading(columns: Any, labels: Mapping[str, str], conventions: Conventions | None) -> dict[str, Any]:
    if not isinstance(columns, TradingColumns):
        raise EpisodeError(f"trading= returned a {type(columns).__name__}: return TradingColumns, or None")
    rules = conventions or Conventions()
    if rules.periods_per_year is None:
        rules = replace(rules, periods_per_year=columns.periods_per_year)
    return {
        "equity": columns.equity,
        "position": columns.position,
        "price": columns.price,
        "fee": columns.fee,
        "slippage": columns.slippage,
        "timestamp": columns.timestamp,
        "traded": columns.traded,
        "leverage": columns.leverage,
        "labels": {**labels, **columns.labels, names.TRADING_SOURCE: columns.source},
        "conventions": rules,
    }


def _labels(steps: EpisodeSteps) -> dict[str, str]:
    last = steps.last_info
    found = ((key, last.get(key)) for key in _LABELS)
    return {key: str(value) for key, value in found if isinstance(value, (str, int, float, np.generic)) and value != ""}


def _actions(steps: EpisodeSteps) -> np.ndarray | None:
    """Returns (T,) integers or (T, d) floats; None for actions that are no numbers."""
    if not len(steps.actions):
        return None
    try:
        actions = np.asarray(steps.actions)
    except ValueError:  # ragged: an action space of variable length
        return None
    if actions.dtype.kind in "biu" and actions.ndim == 1:
        return actions
    if actions.dtype.kind in "bfiu":
        return actions.reshape(len(actions), -1).astype(np.float64)
    return None


def _components(steps: EpisodeSteps, on_error: OnError) -> dict[str, float]:
    reported = steps.column(_COMPONENTS, skip_reset=True)
    if not reported:
        return {}
    try:
        return _same_components(reported)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        pass  # they come and go, or are no numbers
    totals: dict[Any, float] = {}
    try:
        for parts in reported:
            if parts is not None:
                for name, value in parts.items():
                    totals[name] = totals.get(name, 0.0) + float(value)
    except Exception as error:  # noqa: BLE001 - whatever the environment put there
        on_error(f"info[{_COMPONENTS!r}]", error)
        return {}
    return {str(name): total for name, total in totals.items()}


def _same_components(reported: Sequence[Any]) -> dict[str, float]:
    """Sums components that every step reports, the usual case: a fifth of the time of a loop over them.

    Raises:
        AttributeError, IndexError, KeyError, TypeError, ValueError: not every step reports the same ones.
    """
    first = list(reported[0].keys())
    if sum(map(len, reported)) != len(reported) * len(first):
        raise KeyError("more components than the first step has")
    totals: dict[str, float] = {}
    for name in first:
        column = np.array(list(map(itemgetter(name), reported)), dtype=np.float64)
        # Added up in time order, as a loop does: `sum` would add in pairs and give other last bits.
        with np.errstate(all="ignore"):
            total = float(np.add.accumulate(column)[-1]) if column.ndim == 1 else math.nan
        if not math.isfinite(total):
            raise ValueError(f"{name!r} is not one finite number at every step")
        totals[str(name)] = total
    return totals


def component_bars(steps: EpisodeSteps, component: str) -> np.ndarray:
    """Returns one reward component of each step, (T,); NaN where a step does not report it.

    For an episode whose components could be read, see `record_of`.
    """
    reported = steps.column(_COMPONENTS, skip_reset=True) or [None] * steps.length
    try:
        values = list(map(itemgetter(component), reported))  # every step has it: the usual case, and the fast one
    except (KeyError, TypeError):
        values = [math.nan if parts is None else parts.get(component, math.nan) for parts in reported]
    return np.asarray(values, dtype=np.float64)
