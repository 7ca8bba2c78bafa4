"""What an env config of `TradingEnv` may say: its keys, their defaults, and every problem named at once."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import SimpleNamespace
from typing import Any, Final

import numpy as np

from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.markets.datasets import MarketSegment
from drl_ray_tracking.markets.shared import opened

ACTIONS: Final = ("discrete", "continuous")
REWARDS: Final = ("log_return", "simple_return", "pnl")
STARTS: Final = ("random", "enumerate")


@dataclass(frozen=True)
class TradingSettings:
    """Holds the validated keys of an env config; a field is a key, its default the key's default.

    Attributes:
        segments: `MarketSegment`s, or what stands for them in Ray's object store; all with the same number of
            features; one per symbol.
        window: bars earned per episode (W bars need W + 1 closes); None for the whole segment.
        start: "random" draws a segment and a start bar, each uniformly; "enumerate" walks every window in
            order (for evaluation); a whole number starts every episode at that bar of a random segment.
        actions: "discrete" (an action is an index into `positions`) or "continuous" (the action is the target
            position, cut to -1..1, or to 0..1 without `allow_short`).
        positions: target positions of the discrete actions, as fractions of equity; None for (-1, 0, 1), or
            (0, 1) without `allow_short`. Continuous actions ignore it.
        allow_short: whether a position may be negative.
        fee: fee as a fraction of the traded notional, e.g. 0.001.
        slippage: price concession as a fraction of the traded notional, accounted apart from the fee.
        initial_equity: equity at the start of each episode, in currency.
        lookback: feature rows seen at once, oldest first; rows before a segment's first bar repeat its first
            row, so that every lookback trades the same bars.
        reward: "log_return", "simple_return" (both of equity, after costs) or "pnl" (in currency).
        reward_scale: factor on the reward and its components.
        ruin_fraction: an episode is terminated when equity <= ruin_fraction * initial_equity.

    Raises:
        ConfigurationError: naming every key that is unknown, missing or out of range.
    """

    segments: tuple[MarketSegment, ...] = ()
    window: int | None = None
    start: str | int = "random"
    actions: str = "discrete"
    positions: tuple[float, ...] | None = None
    allow_short: bool = True
    fee: float = 0.001
    slippage: float = 0.0
    initial_equity: float = 10_000.0
    lookback: int = 1
    reward: str = "log_return"
    reward_scale: float = 1.0
    ruin_fraction: float = 0.0

    def __post_init__(self) -> None:
        problems = _setting_problems(self)
        if problems:
            raise configuration_error(problems)
        object.__setattr__(self, "segments", tuple(self.segments))
        positions = self.positions
        if positions is None:
            positions = (-1.0, 0.0, 1.0) if self.allow_short else (0.0, 1.0)
        object.__setattr__(self, "positions", tuple(float(position) for position in positions))

    @classmethod
    def from_mapping(cls, config: Mapping[str, Any]) -> TradingSettings:
        """Builds settings from an env config.

        Raises:
            ConfigurationError: naming every problem at once, with the closest known key for an unknown one.
        """
        defaults = {field.name: field.default for field in fields(cls)}
        given = {key: config[key] for key in defaults if key in config}
        if isinstance(given.get("segments"), (tuple, list)):
            given["segments"] = opened(given["segments"])
        problems = [_unknown_key(key, defaults) for key in config if key not in defaults]
        problems += _setting_problems(SimpleNamespace(**{**defaults, **given}))
        if problems:
            raise configuration_error(problems)
        return cls(**given)


def _unknown_key(key: object, known: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(str(key), known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
    return f"unknown key {key!r}; {hint}"


def _setting_problems(settings: TradingSettings | SimpleNamespace) -> list[str]:
    problems = _segment_problems(settings)
    for name, allowed in (("actions", ACTIONS), ("reward", REWARDS)):
        if getattr(settings, name) not in allowed:
            problems.append(f"{name} is {getattr(settings, name)!r}; allowed are {', '.join(allowed)}")
    if not isinstance(settings.allow_short, bool):
        problems.append(f"allow_short is {settings.allow_short!r}; true or false is needed")
    if not _whole(settings.lookback, 1):
        problems.append(f"lookback is {settings.lookback!r}; a whole number >= 1 is needed")
    for name, low, high in (
        ("fee", 0.0, 0.5),
        ("slippage", 0.0, 0.5),
        ("initial_equity", math.ulp(0.0), math.inf),
        ("reward_scale", math.ulp(0.0), math.inf),
        ("ruin_fraction", 0.0, 1.0),
    ):
        value = getattr(settings, name)
        if not (_number(value) and low <= value < high):
            limits = f"from {low:g} to below {high:g}" if math.isfinite(high) else "positive and finite"
            problems.append(f"{name} is {value!r}; a number {limits} is needed")
    problems += _position_problems(settings)
    return problems


def _segment_problems(settings: TradingSettings | SimpleNamespace) -> list[str]:
    """Checks the segments, and the window and start that must fit into each of them."""
    problems: list[str] = []
    segments, window, start = settings.segments, settings.window, settings.start
    usable: list[MarketSegment] = []
    if not isinstance(segments, (tuple, list)) or not segments:
        problems.append("segments is empty or no sequence; at least one MarketSegment is needed")
    else:
        usable = [segment for segment in segments if isinstance(segment, MarketSegment)]
        if len(usable) < len(segments):
            kinds = sorted({type(segment).__name__ for segment in segments if not isinstance(segment, MarketSegment)})
            problems.append(f"segments holds {', '.join(kinds)}; only MarketSegment is allowed: see market_segment()")
        if len({segment.features.shape[1] for segment in usable}) > 1:
            widths = ", ".join(f"{segment.symbol}: {segment.features.shape[1]}" for segment in usable)
            problems.append(f"segments differ in their number of features ({widths}); use one feature config")
    if window is not None and not _whole(window, 1):
        problems.append(f"window is {window!r}; a whole number >= 1 or None is needed")
        window = None
    if not (start in STARTS if isinstance(start, str) else _whole(start, 0)):
        problems.append(f"start is {start!r}; {', '.join(STARTS)} or a whole number >= 0 is needed")
    elif start != "enumerate":
        first = 0 if isinstance(start, str) else start
        needed = first + (window or 1) + 1
        problems += [
            f"segment {segment.symbol} {segment.split} has {len(segment)} closes; window {window} from bar "
            f"{first} needs {needed}: shorten the window or drop the segment"
            for segment in usable
            if len(segment) < needed
        ]
    return problems


def _position_problems(settings: TradingSettings | SimpleNamespace) -> list[str]:
    positions = settings.positions
    if positions is None:
        return []
    if not isinstance(positions, (tuple, list)) or not all(_number(position) for position in positions):
        return [f"positions is {positions!r}; a sequence of finite numbers is needed"]
    if settings.actions == "continuous":
        return []
    problems: list[str] = []
    if len(set(positions)) < 2 or len(set(positions)) < len(positions):
        problems.append(f"positions is {tuple(positions)}; two or more different targets are needed")
    if settings.allow_short is False and any(position < 0 for position in positions):
        problems.append(f"positions is {tuple(positions)} while allow_short is false; drop the negative ones")
    if _number(settings.fee) and _number(settings.slippage):
        cost = settings.fee + settings.slippage
        if any(abs(position) * cost >= 1 for position in positions):
            problems.append(f"positions is {tuple(positions)}: costs of {cost:g} per notional exceed the equity")
    return problems


def _whole(value: object, least: int) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and int(value) >= least


def _number(value: object) -> bool:
    return isinstance(value, (int, float, np.floating)) and not isinstance(value, bool) and math.isfinite(value)


def configuration_error(problems: list[str]) -> ConfigurationError:
    """Returns one error that lists every problem of an env config."""
    listed = "\n".join(f"- {problem}" for problem in problems)
    return ConfigurationError(f"trading env config: {len(problems)} problem(s)\n{listed}")
