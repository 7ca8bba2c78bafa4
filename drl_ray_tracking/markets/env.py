"""`TradingEnv`: a small marked-to-market environment, exact in its accounts, deterministic in evaluation.

It needs gymnasium and numpy only. Its single argument is a mapping, as RLlib hands over its `env_config`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from drl_ray_tracking.errors import ConfigurationError, TrackingError
from drl_ray_tracking.markets.datasets import FEATURE_LIMIT
from drl_ray_tracking.markets.env_settings import TradingSettings, configuration_error

_ACCOUNT_LIMIT: Final = 10.0  # position and unrealised return in the observation; the accounts are not cut
_LOG_FLOOR: Final = 1e-4  # a bar that leaves less than this share of equity is rewarded as if it left this much


class TradingEnv(gym.Env[NDArray[np.float32], Any]):
    """Trades one instrument at a time at the closes of its bars.

    A step at bar t: (1) the agent names a target position, a fraction of equity; (2) if the target
    differs from the one named before, the position is traded to it at the close of t, paying fee and
    slippage on the traded notional, such that the position is exactly the target fraction of the equity
    left after these costs; if it is the same, nothing is traded and the units held stay the same, so the
    held fraction drifts with the price; (3) the move to the close of t + 1 is earned and the account
    marked to market:

        E(t+1) = (E(t) - fee - slippage) * (1 + position * (p(t+1) / p(t) - 1))

    with `position` the fraction held after the trade. An episode starts flat, in cash. Nothing is traded
    at the last close. `truncated` at the end of the window, `terminated` on ruin; never both.

    Observation: float32 (lookback * f + 2,): the last feature rows flattened, oldest first, then the
    position held (fraction of equity) and the return of the open position's price since its average
    entry, both cut to -10..10.

    Infos, of `reset` as of `step`, are plain floats and strings: equity, position (for the bar just
    earned), price, fee, slippage, traded (currency, of this step), timestamp (seconds since the epoch),
    symbol, split, fold, window, periods_per_year, reward_components {market, cost} which sum to the
    reward.

    Enumeration (`start="enumerate"`): the windows are the consecutive ones of each segment, in order;
    neighbours share the boundary close, so each bar is earned once; the last window of a segment may be
    shorter. `reset` moves on only if the window was stepped to its end, because RLlib resets more often
    than it runs episodes; the seed plays no part. After the last window comes the first. Worker i >= 1 of
    k (`worker_index` and `num_workers` of the config object, where it has them) walks windows i - 1,
    i - 1 + k, ... Use one env per worker: RLlib tells the slots of a vector env nothing that would let
    them share the windows. `reset(options={"window": i})` jumps to window i.

    Args:
        config: the keys of `TradingSettings`.

    Raises:
        ConfigurationError: naming every problem of the config at once.
        TrackingError: for an action that is not a position, or a step outside an episode.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - gymnasium declares it so

    def __init__(self, config: Mapping[str, Any]) -> None:
        settings = TradingSettings.from_mapping(config)
        self.settings = settings
        self._windows = _windows(settings)
        self._first_window, self._window_stride = self._share_of(config)
        self._cursor: int | None = None

        width = settings.segments[0].features.shape[1]
        self._feature_width = width
        self._seen = settings.lookback * width
        # Plain lists: reading one float out of an array costs ten times as much, and step() is the hot path.
        self._price_lists = [segment.price.tolist() for segment in settings.segments]
        self._timestamp_lists = [segment.timestamp.tolist() for segment in settings.segments]
        self._feature_rows = [_padded(segment.features, settings.lookback) for segment in settings.segments]

        high = np.full(self._seen + 2, FEATURE_LIMIT, dtype=np.float32)
        high[self._seen :] = _ACCOUNT_LIMIT
        self.observation_space = gym.spaces.Box(-high, high, dtype=np.float32)
        self._discrete = settings.actions == "discrete"
        self._targets = settings.positions or ()
        self._lowest = -1.0 if settings.allow_short else 0.0
        self.action_space = (
            gym.spaces.Discrete(len(self._targets))
            if self._discrete
            else gym.spaces.Box(self._lowest, 1.0, (1,), dtype=np.float32)
        )
        self._cost = settings.fee + settings.slippage
        self._ruin = settings.ruin_fraction * settings.initial_equity
        self._running = False
        self._finished = False

    @staticmethod
    def number_of_windows(config: Mapping[str, Any]) -> int:
        """Counts the windows one full evaluation pass walks through, over all workers.

        Raises:
            ConfigurationError: as the constructor.
        """
        return len(_windows(TradingSettings.from_mapping(config)))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Starts an episode, flat and in cash; `options={"window": i}` starts at enumerated window i."""
        super().reset(seed=seed)
        segment, first, self._last, window = self._next_window((options or {}).get("window"))
        chosen = self.settings.segments[segment]
        self._prices = self._price_lists[segment]
        self._timestamps = self._timestamp_lists[segment]
        self._features = self._feature_rows[segment]
        self._labels = {
            "symbol": chosen.symbol,
            "split": chosen.split,
            "fold": chosen.fold,
            "window": window,
            "periods_per_year": float(chosen.periods_per_year),
        }
        self._bar = first
        self._cash = self._equity = float(self.settings.initial_equity)
        self._units = self._target = self._entry = 0.0
        self._running, self._finished = True, False
        return self._observation(), self._info(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)

    def step(self, action: Any) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Trades at the close of this bar and earns the next one."""
        if not self._running:
            raise TrackingError("step() was called outside an episode; call reset() first.")
        target = self._target_of(action)
        bar = self._bar
        price = self._prices[bar]
        before = self._equity
        after, traded, fee, slippage = before, 0.0, 0.0, 0.0
        if target != self._target:
            after, traded, fee, slippage = self._rebalance(target, price)
        position = self._units * price / after if self._units else 0.0

        self._bar = bar = bar + 1
        self._equity = equity = self._cash + self._units * self._prices[bar]
        terminated = equity <= self._ruin
        truncated = not terminated and bar == self._last
        if terminated or truncated:
            self._running, self._finished = False, True
        market, cost = self._reward_components(before, after, equity)
        return (
            self._observation(),
            market + cost,
            terminated,
            truncated,
            self._info(position, traded, fee, slippage, market, cost),
        )

    def _target_of(self, action: Any) -> float:
        if self._discrete:
            index = int(action)
            if not 0 <= index < len(self._targets):  # a negative index would silently pick a position from the end
                raise TrackingError(
                    f"action is {action!r}; a whole number from 0 to {len(self._targets) - 1} is needed"
                )
            return self._targets[index]
        target = float(np.asarray(action).reshape(-1)[0])
        if not math.isfinite(target):
            raise TrackingError(f"action is {action!r}: not finite. The policy has probably diverged.")
        return min(1.0, max(self._lowest, target))

    def _rebalance(self, target: float, price: float) -> tuple[float, float, float, float]:
        """Trades to the target fraction of the equity left after costs.

        With equity E, held notional h, target w and cost rate k, the traded notional is |w E' - h| and
        E' = E - k |w E' - h|, which is linear on either side of w E = h.

        Returns:
            E', the traded notional, the fee and the slippage, in currency.
        """
        equity, held, k = self._equity, self._units * price, self._cost
        if target * equity >= held:
            left = (equity + k * held) / (1.0 + k * target)
        else:
            left = (equity - k * held) / (1.0 - k * target)
        if left <= 0.0:  # the costs of this trade eat all equity: liquidate, the episode ends in ruin
            left, target = equity - k * abs(held), 0.0
        traded = abs(target * left - held)
        fee, slippage = self.settings.fee * traded, self.settings.slippage * traded
        after = equity - fee - slippage
        units = target * after / price
        if units * self._units <= 0.0:
            self._entry = price
        elif abs(units) > abs(self._units):
            self._entry += (price - self._entry) * (1.0 - self._units / units)
        self._units, self._cash, self._target = units, (1.0 - target) * after, target
        return after, traded, fee, slippage

    def _reward_components(self, before: float, after: float, equity: float) -> tuple[float, float]:
        """Returns the reward's parts from the market and from costs, scaled; their sum is the reward."""
        scale, kind = self.settings.reward_scale, self.settings.reward
        if kind == "log_return":
            total = math.log(max(equity / before, _LOG_FLOOR))
            cost = math.log(max(after / before, _LOG_FLOOR)) if after != before else 0.0
            return scale * (total - cost), scale * cost
        unit = before if kind == "simple_return" else 1.0
        return scale * (equity - after) / unit, scale * (after - before) / unit

    def _observation(self) -> NDArray[np.float32]:
        observation = np.empty(self._seen + 2, dtype=np.float32)
        offset = self._bar * self._feature_width
        observation[: self._seen] = self._features[offset : offset + self._seen]
        held = unrealised = 0.0
        units = self._units
        if units:
            price = self._prices[self._bar]
            # Ruined accounts have no meaningful fraction; the episode is over then.
            held = units * price / self._equity if self._equity > 0.0 else 0.0
            unrealised = price / self._entry - 1.0 if units > 0.0 else 1.0 - price / self._entry
        observation[-2] = min(_ACCOUNT_LIMIT, max(-_ACCOUNT_LIMIT, held))
        observation[-1] = min(_ACCOUNT_LIMIT, max(-_ACCOUNT_LIMIT, unrealised))
        return observation

    def _info(
        self, position: float, traded: float, fee: float, slippage: float, market: float, cost: float
    ) -> dict[str, Any]:
        return {
            "equity": self._equity,
            "position": position,
            "price": self._prices[self._bar],
            "fee": fee,
            "slippage": slippage,
            "traded": traded,
            "timestamp": self._timestamps[self._bar],
            **self._labels,
            "reward_components": {"market": market, "cost": cost},
        }

    def _next_window(self, asked: object) -> tuple[int, int, int, str]:
        """Returns (segment, first bar, last bar, label) of the episode to start."""
        windows = self._windows
        if asked is not None:
            if not isinstance(asked, (int, np.integer)) or not 0 <= asked < len(windows):
                raise ConfigurationError(
                    f"options['window'] is {asked!r}; a whole number from 0 to {len(windows) - 1} is needed."
                )
            self._cursor = int(asked)
        elif self.settings.start != "enumerate":
            return self._drawn_window()
        elif self._cursor is None:
            self._cursor = self._first_window
        elif self._finished:
            following = self._cursor + self._window_stride
            self._cursor = following if following < len(windows) else self._first_window
        return *windows[self._cursor], str(self._cursor)

    def _drawn_window(self) -> tuple[int, int, int, str]:
        segment = int(self.np_random.integers(len(self.settings.segments)))
        bars = len(self.settings.segments[segment]) - 1
        window, start = self.settings.window, self.settings.start
        if isinstance(start, str):
            first = int(self.np_random.integers(bars - (window or bars) + 1))
            return segment, first, first + (window or bars), "random"
        return segment, start, start + (window or bars - start), "fixed"

    def _share_of(self, config: Mapping[str, Any]) -> tuple[int, int]:
        """Returns the first enumerated window and the stride of this worker, read off an RLlib EnvContext."""
        worker = int(getattr(config, "worker_index", 0) or 0)
        workers = int(getattr(config, "num_workers", 0) or 0)
        if self.settings.start != "enumerate":
            return 0, 1
        if (getattr(config, "vector_index", 0) or 0) > 0:
            raise configuration_error(
                ["start='enumerate' needs one env per worker: each slot would repeat all windows"]
            )
        if worker < 1 or workers < 1:
            return 0, 1
        if worker > len(self._windows):
            raise configuration_error(
                [f"worker {worker} of {workers} has no window, there are {len(self._windows)}: use fewer workers"]
            )
        return worker - 1, workers


def _windows(settings: TradingSettings) -> tuple[tuple[int, int, int], ...]:
    """Lists every enumerated window as (segment, first bar, last bar); neighbours share one bar."""
    return tuple(
        (number, first, min(first + (settings.window or len(segment)), len(segment) - 1))
        for number, segment in enumerate(settings.segments)
        for first in range(0, len(segment) - 1, settings.window or len(segment))
    )


def _padded(features: NDArray[np.float32], lookback: int) -> NDArray[np.float32]:
    """Flattens (n, f) rows behind lookback - 1 copies of row 0: bar t sees [t * f, (t + lookback) * f)."""
    return np.concatenate([np.repeat(features[:1], lookback - 1, axis=0), features]).ravel()
