"""The gymnasium wrappers: same records as RLlib's path, nothing changed on the way, every autoreset mode."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from drl_ray_tracking.capture.measured import Measurement, kpis
from drl_ray_tracking.capture.recorder import RecordEpisodes, RecordVectorEpisodes, infos_by_env
from drl_ray_tracking.episodes import EpisodeRecord, EpisodeSummary
from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.markets.datasets import MarketSegment
from drl_ray_tracking.training import TradingEnv
from tests.capture.episodes import OBSERVATIONS, chunks_of, market

LENGTHS = (4, 7, 3)


class Replay(gym.Env[Any, Any]):
    """Plays the same market episodes again and again, reusing one info dict, as thrifty environments do."""

    observation_space = OBSERVATIONS
    action_space = gym.spaces.Discrete(3)

    def __init__(self, lengths: tuple[int, ...] = LENGTHS) -> None:
        self.episodes = [market(n, seed=n, symbol="X") for n in lengths]
        self.number = -1
        self.info: dict[str, Any] = {}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.number += 1
        self.t = 0
        return self._seen()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.t += 1
        observation, info = self._seen()
        return observation, 0.5 * (self.t - 1), self.t == len(self._infos) - 1, False, info

    @property
    def _infos(self) -> list[dict[str, Any]]:
        return self.episodes[self.number % len(self.episodes)]

    def _seen(self) -> tuple[Any, dict[str, Any]]:
        self.info.clear()
        self.info.update(self._infos[self.t])
        return np.full(2, self.t / 10, np.float32), self.info


def played(env: Any, episodes: int) -> None:
    for _ in range(episodes):
        env.reset()
        done, t = False, 0
        while not done:
            _, _, terminated, truncated, _ = env.step(np.int64(t % 3))
            done, t = terminated or truncated, t + 1


def through_rllib(lengths: tuple[int, ...] = LENGTHS) -> dict[str, float]:
    chunks = [chunks_of(market(n, seed=n, symbol="X"), terminated=True) for n in lengths]
    return dict(kpis([Measurement().of(each, lambda where, error: pytest.fail(str(error)))[0] for each in chunks]))


def test_a_plain_loop_gives_the_numbers_of_rllib() -> None:
    records: list[EpisodeRecord] = []
    env = RecordEpisodes(Replay(), on_episode=records.append)
    assert env.last_record is None
    assert env.summary.count == 0
    played(env, len(LENGTHS))
    assert env.errors == 0
    assert env.summary.compute() == through_rllib()
    assert [record.length for record in records] == list(LENGTHS)
    assert env.last_record is records[-1]


def test_pop_starts_anew() -> None:
    env = RecordEpisodes(Replay())
    played(env, 2)
    assert env.pop_summary().count == 2
    assert env.summary.count == 0
    played(env, 1)
    assert env.pop_summary().count == 1


def test_what_the_environment_returns_is_handed_through_untouched() -> None:
    bare, env = Replay(), RecordEpisodes(Replay())
    (seen, info), (same, known) = bare.reset(), env.reset()
    assert np.array_equal(seen, same)
    assert info == known
    for t in range(LENGTHS[0]):
        left, right = bare.step(t % 3), env.step(t % 3)
        assert np.array_equal(left[0], right[0])
        assert left[1:] == right[1:]
        assert right[4] is env.unwrapped.info  # type: ignore[attr-defined]


def test_an_unfinished_episode_is_not_recorded() -> None:
    env = RecordEpisodes(Replay((4,)))
    env.reset()
    env.step(0)
    played(env, 1)
    assert env.summary.count == 1
    assert env.last_record is not None
    assert env.last_record.length == 4


def test_under_autoreset_the_step_after_the_end_is_the_reset() -> None:
    env = RecordEpisodes(gym.wrappers.Autoreset(Replay((3,))))
    env.reset()
    for t in range(3 + 1 + 3 + 1 + 3):
        env.step(np.int64(t % 4 % 3))
    assert env.summary.compute() == through_rllib((3, 3, 3))


class Explodes(Replay):
    """Ends with a reward no record can hold."""

    def step(self, action: Any) -> Any:
        observation, _, terminated, truncated, info = super().step(action)
        return observation, "a lot", terminated, truncated, info


def explode(_: Any) -> Any:
    raise RuntimeError("boom")


@pytest.mark.parametrize(
    ("env", "options", "errors", "recorded"),
    [
        (Replay((4,)), {"trading": explode}, 1, 1),
        (Replay((4,)), {"trading": {"equity": "nav"}}, 1, 1),
        (Replay((4,)), {"on_episode": explode}, 1, 1),
        (Explodes((4,)), {}, 4, 0),
    ],
)
def test_errors_are_contained_and_counted(env: Replay, options: dict[str, Any], errors: int, recorded: int) -> None:
    wrapped = RecordEpisodes(env, **options)
    played(wrapped, 1)
    assert (wrapped.errors, wrapped.summary.count) == (errors, recorded)


def test_a_wrong_trading_argument_fails_at_once() -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'equity'"):
        RecordEpisodes(Replay(), trading={"equty": "nav"})


def vector_played(mode: AutoresetMode, wrap: Any = RecordVectorEpisodes) -> Any:
    """Two slots, the second with its episodes in another order, long enough for two rounds of both."""
    makers: list[Any] = [lambda: Replay((4, 7)), lambda: Replay((3, 5))]
    env = wrap(SyncVectorEnv(makers, autoreset_mode=mode))
    env.reset(seed=1)
    steps = np.zeros(2, dtype=int)
    for _ in range(13):
        _, _, terminated, truncated, _ = env.step(np.array(steps % 3))
        done = terminated | truncated
        steps = np.where(done, 0 if mode is not AutoresetMode.NEXT_STEP else -1, steps + 1)
        if mode is AutoresetMode.DISABLED and done.any():
            env.reset(options={"reset_mask": done})
    return env


@pytest.mark.parametrize(
    ("mode", "finished"),
    [
        (AutoresetMode.NEXT_STEP, (4, 7, 3, 5, 3)),  # each reset costs a step
        (AutoresetMode.SAME_STEP, (4, 7, 3, 5, 3)),
        (AutoresetMode.DISABLED, (4, 7, 3, 5, 3)),
    ],
)
def test_vector_environments_in_every_autoreset_mode(mode: AutoresetMode, finished: tuple[int, ...]) -> None:
    env = vector_played(mode)
    assert env.errors == 0
    assert env.summary.compute() == through_rllib(finished)
    assert env.last_record.length in finished
    assert env.pop_summary().count == len(finished)
    assert env.summary == EpisodeSummary.empty() or env.summary.count == 0


def test_slots_in_processes_of_their_own() -> None:
    makers: list[Any] = [lambda: Replay((4, 7)), lambda: Replay((3, 5))]
    env = RecordVectorEpisodes(AsyncVectorEnv(makers))
    try:
        env.reset(seed=1)
        t = np.zeros(2, dtype=int)
        for _ in range(9):
            done = np.logical_or(*env.step(np.array(t % 3))[2:4])
            t = np.where(done, -1, t + 1)
    finally:
        env.close()
    assert env.summary.compute() == through_rllib((4, 3, 5))


def test_one_slots_error_is_not_the_others() -> None:
    env = RecordVectorEpisodes(SyncVectorEnv([lambda: Replay((2,)), lambda: Replay((2,))]))
    env.reset()
    slots, env.env.step = env.env, lambda _: (None, np.array(["a lot", 1.0], object), [0, 1], [0, 0], {})  # type: ignore[method-assign, assignment]
    env.step(np.array([0, 0]))
    assert slots is env.env
    assert (env.errors, env.summary.count) == (1, 1)


def test_a_single_environment_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="env is a Replay, not a gymnasium VectorEnv: use RecordEpisodes"):
        RecordVectorEpisodes(Replay())  # type: ignore[arg-type]


def test_vectorised_infos_come_apart() -> None:
    vector = {
        "equity": np.array([1.0, 0.0]),
        "_equity": np.array([True, False]),
        "final_info": {"x": np.array([0, 5]), "_x": np.array([False, True])},
        "_final_info": np.array([False, True]),
        "shared": "not per environment",
    }
    assert infos_by_env(vector, 2) == [{"equity": 1.0}, {"final_info": {"x": 5}}]


FLAT_LONG_SHORT = (0.0, 1.0, -1.0)


def traded(targets: tuple[int, ...], **cost: float) -> EpisodeRecord:
    """Two bars of each target in turn, on a market that rises now and then; flat in the end."""
    bars = 41
    price = 100.0 * np.cumprod(1.0 + np.where(np.arange(bars) % 4 == 1, 0.015, 0.0))
    segment = MarketSegment("X", 86_400.0 * np.arange(bars), price, np.zeros((bars, 0), np.float32), 252.0)
    env = RecordEpisodes(TradingEnv({"segments": [segment], "positions": FLAT_LONG_SHORT, **cost}))
    env.reset()
    for t in range(bars - 1):
        env.step(targets[t // 2 % len(targets)] if t < bars - 3 else 0)
    assert env.last_record is not None
    return env.last_record


@pytest.mark.parametrize("targets", [(0, 1), (1, 2), (0, 2, 1)], ids=["long-flat", "flips", "both"])
@pytest.mark.parametrize("cost", [{"fee": 0.01}, {"fee": 0.0, "slippage": 0.01}, {"fee": 0.004, "slippage": 0.006}])
def test_trades_are_net_of_every_cost(cost: dict[str, float], targets: tuple[int, ...]) -> None:
    """What they won and lost is what the account did, whatever a cost is called."""
    record = traded(targets, **cost)
    trades = record.closed_trades()
    assert trades and record.open_trades == 0 and record.equity is not None and record.fee is not None
    assert sum(trade.pnl for trade in trades) == pytest.approx(record.equity[-1] - record.equity[0])
    assert sum(trade.fees for trade in trades) == pytest.approx(record.fee.sum())
    as_fees = traded(targets, fee=0.01).closed_trades() or ()
    assert [trade.pnl for trade in trades] == pytest.approx([trade.pnl for trade in as_fees])
