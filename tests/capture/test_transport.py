"""What RLlib makes of an item series on its way, and what must come out of it."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from drl_ray_tracking import names
from drl_ray_tracking.capture import transport
from drl_ray_tracking.capture.measured import Measured
from drl_ray_tracking.episodes import EpisodeRecord, EpisodeSummary


class Logger:
    """Keeps what is logged, as RLlib's MetricsLogger would."""

    def __init__(self) -> None:
        self.logged: list[tuple[Any, Any, Any]] = []

    def log_value(self, key: Any, value: Any, *, reduce: Any = None) -> None:
        self.logged.append((key, value, reduce))


def refuse(_: Any) -> bytes:
    raise AssertionError("plain pickle was enough")


def sent(item: Any, by_value: Any = refuse) -> bytes:
    logger = Logger()
    transport.send(logger, names.SUMMARIES, [item], by_value=by_value)
    ((key, value, reduce),) = logger.logged
    assert (key, reduce) == ((names.TRANSPORT, names.SUMMARIES), "item_series")
    assert isinstance(value, bytes)
    return value


@pytest.mark.parametrize(
    ("shape", "count"),
    [("list", 2), ("one, unwrapped", 1), ("nan", 0), ("empty", 0), ("nothing", 0)],
)
def test_every_shape_an_item_series_takes(shape: str, count: int) -> None:
    one = sent({"x": 1})
    carried: Any = {"list": [one, one], "one, unwrapped": one, "nan": float("nan"), "empty": []}.get(shape)
    group: dict[str, Any] = {"num_episodes": 2}
    if carried is not None:
        group[names.TRANSPORT] = {names.SUMMARIES: carried}
    received = transport.take(group)
    assert group == {"num_episodes": 2}
    assert transport.unpack(received.get(names.SUMMARIES, [])) == [{"x": 1}] * count


@pytest.mark.parametrize("carried", [float("nan"), None, []])
def test_a_transport_that_is_no_mapping(carried: Any) -> None:
    group = {names.TRANSPORT: carried}
    assert transport.take(group) == {}
    assert group == {}


def test_an_episode_takes_bounded_bytes_whatever_its_length() -> None:
    rng = np.random.default_rng(0)
    sizes = []
    for length in (1_000, 100_000):
        returns = rng.normal(0.0, 0.01, length)
        record = EpisodeRecord(
            1.0,
            length,
            equity=np.cumprod(np.r_[1.0, 1.0 + returns]),
            position=np.sign(returns),
            actions=rng.integers(0, 3, length),
        )
        sizes.append(len(sent(Measured(EpisodeSummary.of(record), "window"))))
    print(f"\nbytes of an episode of 10^3 and 10^5 steps: {sizes}")
    assert sizes[1] < 60_000


def test_what_pickle_refuses_goes_by_value() -> None:
    assert sent(lambda: None, by_value=lambda _: pickle.dumps("by value")) == pickle.dumps("by value")
