"""Looks, before anything trains, whether an agent could see what it cannot know yet.

Two looks. Time: pieces that share bars, or lie closer than the embargo. Peeking: future bars are changed at random,
and whatever an environment shows or a feature says about bars before that must stay exactly as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

from drl_ray_tracking.errors import DataError
from drl_ray_tracking.markets.datasets import FEATURE_PREFIX, SPLITS, MarketSegment, SplitDataSet
from drl_ray_tracking.markets.features import price_features
from drl_ray_tracking.training.algorithms import environment_class, evaluation_environment
from drl_ray_tracking.training.config import SweepConfig
from drl_ray_tracking.training.market import Market, feature_settings

_STEPS: Final = 120  # of an environment
_CUTS: Final = (0.25, 0.5, 0.8)  # after which share of the steps the future is changed
_KNOWING: Final = 0.9  # a feature whose correlation with the next bar's return is beyond this has seen it
_LEAST_BARS: Final = 30


def look_for_leaks(config: SweepConfig, markets: Sequence[Market], say: Callable[[str], None]) -> None:
    """Refuses data and environments that leak, or says so where `leakage: warn` asks for that.

    Raises:
        DataError: something leaks; every leak is named.
    """
    if config.leakage == "off":
        return
    found: list[str] = []
    for market in markets:
        found += dataset_leaks(market.dataset)
    first = markets[0]
    settings = feature_settings(config.features)
    history = first.dataset.training
    if len(history) > 2 * settings.warmup + _LEAST_BARS:
        rng = np.random.default_rng(0)
        found += peeking_features(lambda bars: price_features(bars, settings), history, rng)
    make = environment_class(config)
    found += environment_leaks(make, evaluation_environment(config, first), first.validation.open())
    if not found:
        return
    text = f"{len(found)} leak(s):\n" + "\n".join(f"- {leak}" for leak in dict.fromkeys(found))
    if config.leakage == "refuse":
        raise DataError(f"{text}\nMend them, or set `leakage: warn` to train all the same")
    say(f"warning: {text}")


def dataset_leaks(dataset: SplitDataSet) -> list[str]:
    """Returns what leaks inside a data set: bars that two pieces share, features that know the next bar.

    Args:
        dataset: the pieces, whatever computed their features.
    """
    where = f"{dataset.symbol}{'' if dataset.fold is None else f', fold {dataset.fold}'}"
    found = []
    for earlier, later in (("train", "validation"), ("validation", "test"), ("train", "test")):
        both = dataset.frame(earlier).index.intersection(dataset.frame(later).index)
        if len(both):
            found.append(f"{where}: {earlier} and {later} share {len(both)} bars, the first at {both[0]}")
        elif dataset.frame(earlier).index[-1] >= dataset.frame(later).index[0]:
            found.append(f"{where}: {earlier} does not end before {later} begins")
    for split in SPLITS:
        found += [f"{where}: {text}" for text in knowing_features(dataset.frame(split))]
    return list(dict.fromkeys(found))


def knowing_features(frame: pd.DataFrame) -> list[str]:
    """Returns the features that all but tell the next bar's return: no honest one comes near."""
    if len(frame) < _LEAST_BARS:
        return []
    coming = frame["close"].pct_change().shift(-1).to_numpy()[:-1]
    found = []
    for name in frame.columns:
        if not str(name).startswith(FEATURE_PREFIX):
            continue
        values = frame[name].to_numpy(dtype=np.float64)[:-1]
        usable = np.isfinite(values) & np.isfinite(coming)
        if usable.sum() < _LEAST_BARS or values[usable].std() == 0.0 or coming[usable].std() == 0.0:
            continue
        correlation = float(np.corrcoef(values[usable], coming[usable])[0, 1])
        if abs(correlation) > _KNOWING:
            found.append(f"the feature {name} knows the next bar's return (correlation {correlation:.2f})")
    return found


def peeking_features(
    compute: Callable[[pd.DataFrame], pd.DataFrame], bars: pd.DataFrame, rng: np.random.Generator
) -> list[str]:
    """Returns the features whose present values change when later bars do.

    Args:
        compute: from bars to features, indexed by the bars they belong to.
        bars: a history with a `close`.
        rng: draws the changes.
    """
    before = compute(bars)
    found: dict[str, str] = {}
    for share in _CUTS:
        cut = int(len(bars) * share)
        changed = bars.copy()
        scale = np.ones(len(bars))
        scale[cut:] = np.exp(rng.normal(0.0, 0.05, len(bars) - cut))
        for name in changed.columns:
            if pd.api.types.is_numeric_dtype(changed[name]):
                changed[name] = changed[name].astype("float64") * scale
        after = compute(changed)
        known = before.index[before.index < bars.index[cut]]
        for name in before.columns:
            then, now = before.loc[known, name], after[name].reindex(known)
            differs = ~((then == now) | (then.isna() & now.isna())).to_numpy()
            if differs.any():
                found.setdefault(str(name), f"the feature {name} at {known[differs.argmax()]} changes with later bars")
    return list(found.values())


def environment_leaks(
    make: Callable[[Any], Any], env_config: Mapping[str, Any], segment: MarketSegment, seed: int = 0
) -> list[str]:
    """Returns what an environment shows of bars that have not happened yet.

    Two copies, one of them over changed future bars, are given the same actions; until the change they must show
    the very same observations.

    Args:
        make: from an env config to an environment.
        env_config: its `segments` are replaced.
        segment: the bars.
        seed: of the actions and the changes.
    """
    rng = np.random.default_rng(seed)
    steps = min(_STEPS, len(segment) - 2)
    for share in _CUTS:
        bars = max(1, int(steps * share))
        told = _walk(make, {**env_config, "segments": [segment]}, bars, seed)
        cut = _first_unknown(told, segment, bars)
        other = _walk(make, {**env_config, "segments": [_changed_after(segment, cut, rng)]}, bars, seed)
        for step, ((then, at), (now, _)) in enumerate(zip(told, other, strict=False)):
            if at is not None and at >= float(segment.timestamp[cut]):
                break
            if at is None and step >= cut:
                break
            if not _same(then, now):
                since = pd.Timestamp(float(segment.timestamp[cut]), unit="s")
                taken = "" if at is not None else " (its infos have no `timestamp`: taken to begin at the first bar)"
                text = f"its observation after {step} steps changes when only bars from {since} on do{taken}"
                return [f"the environment peeks: {text}"]
    return []


def _first_unknown(told: Sequence[tuple[Any, float | None]], segment: MarketSegment, bars: int) -> int:
    """Returns the first bar that the walk's last observation may not know."""
    last = told[-1][1]
    if last is None:
        return min(bars + 1, len(segment) - 1)
    return min(int(np.searchsorted(segment.timestamp, last, side="right")), len(segment) - 1)


def _walk(
    make: Callable[[Any], Any], env_config: Mapping[str, Any], steps: int, seed: int
) -> list[tuple[Any, float | None]]:
    """Returns what an environment shows, and the time it says it is, after each of so many steps."""
    env = make(dict(env_config))
    env.action_space.seed(seed)
    observation, info = env.reset(seed=seed)
    told = [(_copied(observation), _time(info))]
    for _ in range(steps):
        observation, _, terminated, truncated, info = env.step(env.action_space.sample())
        told.append((_copied(observation), _time(info)))
        if terminated or truncated:
            break
    env.close()
    return told


def _time(info: Any) -> float | None:
    given = info.get("timestamp") if isinstance(info, Mapping) else None
    return float(given) if isinstance(given, (int, float, np.floating, np.integer)) else None


def _copied(observation: Any) -> Any:
    if isinstance(observation, Mapping):
        return {key: _copied(value) for key, value in observation.items()}
    if isinstance(observation, tuple):
        return tuple(_copied(value) for value in observation)
    return np.array(observation, copy=True)


def _same(then: Any, now: Any) -> bool:
    if isinstance(then, Mapping):
        return all(_same(then[key], now[key]) for key in then)
    if isinstance(then, tuple):
        return all(_same(*pair) for pair in zip(then, now, strict=True))
    return bool(np.array_equal(then, now, equal_nan=np.asarray(then).dtype.kind == "f"))


def _changed_after(segment: MarketSegment, cut: int, rng: np.random.Generator) -> MarketSegment:
    """Returns a segment whose bars from `cut` on are others."""
    price, features = segment.price.copy(), segment.features.astype(np.float64)
    price[cut:] *= np.exp(rng.normal(0.0, 0.05, len(price) - cut))
    features[cut:] += rng.normal(0.0, 1.0, features[cut:].shape)
    return MarketSegment(
        segment.symbol,
        segment.timestamp,
        price,
        features.astype(np.float32),
        segment.periods_per_year,
        segment.split,
        segment.fold,
    )
