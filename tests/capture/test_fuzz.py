"""Ten thousand episodes of anything at all: no exception, and nothing that is not finite in a result."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from drl_ray_tracking.capture.measured import Measured, Measurement, kpis
from drl_ray_tracking.capture.presets import trading_source
from drl_ray_tracking.capture.steps import EpisodeSteps

EPISODES = 10_000
KEYS = ("equity", "position", "price", "fee", "timestamp", "traded", "symbol", "periods_per_year", "window", "x")


def anything(rng: np.random.Generator) -> Any:
    """One value as an environment might put it into an info."""
    kinds: list[Any] = [
        lambda: float(rng.normal(100, 50)),
        lambda: float(10.0 ** rng.integers(-300, 300)) * rng.choice([-1, 1]),
        lambda: rng.choice([math.nan, math.inf, -math.inf, 0.0, -0.0]),
        lambda: int(rng.integers(-5, 5)),
        lambda: np.float32(rng.normal()),
        lambda: np.array([rng.normal()]),
        lambda: np.zeros((2, 2)),
        lambda: "text",
        lambda: None,
        lambda: {"nested": 1},
        lambda: [1, 2],
        lambda: True,
        lambda: np.datetime64("2020-01-01"),
        lambda: object(),
        lambda: 10**400,
    ]
    return kinds[rng.integers(len(kinds))]()


def infos(rng: np.random.Generator, length: int) -> list[Any]:
    tame = rng.random() < 0.5
    keys = [key for key in KEYS if rng.random() < (0.1 if tame else 0.6)]
    walk = 100 * np.cumprod(1 + rng.normal(0, 0.05, length + 1))
    made: list[Any] = []
    for t in range(length + 1):
        info = {key: anything(rng) for key in keys if rng.random() < 0.95}
        if tame:
            info["equity"] = float(walk[t])
        made.append(info if rng.random() < 0.98 else {})
    return made


def test_ten_thousand_random_episodes() -> None:
    rng = np.random.default_rng(11)
    measurement = Measurement(trading_source(None))
    errors: list[str] = []
    batch: list[Measured] = []
    traded = 0
    for number in range(EPISODES):
        length = int(rng.integers(1, 12))
        steps = EpisodeSteps(
            infos=infos(rng, length),
            rewards=rng.choice([1.0, -1.0, 0.0, math.nan, math.inf, 1e300], length),
            actions=[anything(rng) for _ in range(length)] if rng.random() < 0.3 else list(rng.integers(0, 3, length)),
            terminated=bool(rng.integers(2)),
            truncated=bool(rng.integers(2)),
        )
        record = measurement.record(steps, lambda where, error: errors.append(where))
        traded += record.equity is not None
        batch.append(Measured(measurement.summary(record), ""))
        if number % 100 == 99:
            values = dict(kpis(batch))
            assert all(math.isfinite(value) for value in values.values())
            assert values["episode/count"] == 100
            batch.clear()
    assert traded > EPISODES / 20, "some of it was sound enough to be measured"
    assert errors, "and some of it was not"
