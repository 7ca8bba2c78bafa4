"""Random episodes for the tests: ordinary ones, and ones as strange as an environment can make them."""

from __future__ import annotations

from typing import Any

import numpy as np

from drl_ray_tracking.episodes import Conventions, EpisodeRecord, Trade

DAILY = Conventions(periods_per_year=252.0)


def trading_record(rng: np.random.Generator, length: int = 50, **changes: Any) -> EpisodeRecord:
    """An ordinary trading episode with everything reported."""
    market = rng.normal(0.0003, 0.01, length)
    position = np.repeat(rng.integers(-1, 2, length // 5 + 1), 5)[:length].astype(float)
    fee = rng.random(length)
    equity = 1e4 * np.cumprod(np.concatenate(([1.0], 1.0 + position * market - fee / 1e4)))
    fields: dict[str, Any] = {
        "episode_return": float(rng.normal()),
        "length": length,
        "terminated": bool(rng.integers(2)),
        "truncated": bool(rng.integers(2)),
        "actions": rng.integers(0, 3, length),
        "reward_components": {"profit": float(rng.normal()), "risk": float(rng.normal())},
        "labels": {"symbol": str(rng.choice(["GOOGL", "MSFT", "BTC/USD"])), "split": "train"},
        "equity": equity,
        "position": position,
        "price": 100.0 * np.cumprod(np.concatenate(([1.0], 1.0 + market))),
        "fee": fee,
        "timestamp": np.arange(length + 1),
        "traded": rng.random(length) * 1e4,
        "conventions": DAILY,
    }
    return EpisodeRecord(**(fields | changes))


_WEIRD = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, -1.0, 1e-308, 5e-324, 1e308, -1e308, 1e8, 1.0, 1e-12])


def weird_array(rng: np.random.Generator, size: int, *, share: float) -> np.ndarray:
    """Numbers around one, a share of them absurd."""
    values = rng.lognormal(0.0, 0.5, size)
    odd = rng.random(size) < share
    values[odd] = rng.choice(_WEIRD, odd.sum())
    return values


def weird_fields(rng: np.random.Generator) -> dict[str, Any]:
    """Arguments of a record: sometimes absurd, sometimes contradictory."""
    length = int(rng.choice([0, 1, 2, 3, 7, 30]))
    share = float(rng.choice([0.0, 0.05, 0.5, 1.0]))
    fields: dict[str, Any] = {
        "episode_return": float(rng.choice([*_WEIRD, 1.5])),
        "terminated": bool(rng.integers(2)),
        "truncated": bool(rng.integers(2)),
        "length": length,
        "conventions": Conventions(
            *rng.choice([[None, 0.0, 0.0, 0.0], [252.0, 0.001, -0.01, 0.02], [1e300, 1e308, -1e308, 1e308]])
        ),
        "labels": {"symbol": str(rng.choice(["A", "B/C", "", "ü"]))},
        "reward_components": {"x": float(rng.choice(_WEIRD))},
    }
    for name, extra in (("equity", 1), ("position", 0), ("price", 1), ("fee", 0), ("traded", 0)):
        if rng.random() < 0.7:
            wrong = int(rng.random() < 0.02)
            fields[name] = weird_array(rng, length + extra + wrong, share=share * float(rng.integers(2)))
    if rng.random() < 0.3:
        fields["trades"] = tuple(Trade(None, "x", 1, *rng.choice(_WEIRD, 3)) for _ in range(rng.integers(4)))
    match rng.integers(4):
        case 0:
            fields["actions"] = rng.integers(-2, 100, length)
        case 1:
            fields["actions"] = rng.choice(_WEIRD, (length, int(rng.choice([0, 1, 3, 70]))))
        case 2:
            with np.errstate(over="ignore"):
                fields["actions"] = weird_array(rng, length, share=share).astype(np.float32)
    return fields
