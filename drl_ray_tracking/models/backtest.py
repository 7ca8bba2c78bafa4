"""Backtest: one deterministic pass of a policy over an environment's episodes, measured as an evaluation is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from drl_ray_tracking.capture.recorder import RecordEpisodes
from drl_ray_tracking.episodes import Conventions, EpisodeRecord


class Acting(Protocol):
    """What can be backtested: `Policy`, or anything that acts step by step."""

    def play(self, slots: int = 1) -> Any:
        """Returns something whose `act([observation], rewards)` gives `[action]`, from the first observation on.

        `rewards` is None at first, then `[reward]` of the action before, for policies that look at it.
        """
        ...


@dataclass(frozen=True)
class Backtest:
    """What a policy did on every window.

    Attributes:
        kpis: as an evaluation reports them, without the leading `eval/`: `trading/sharpe`, `episode/return_mean`.
        records: one a window, in order.
    """

    kpis: Mapping[str, float]
    records: tuple[EpisodeRecord, ...]


def backtest_env(
    policy: Acting,
    make: Callable[[], Any],
    *,
    windows: int,
    trading: Any = None,
    conventions: Conventions | None = None,
) -> Backtest:
    """Runs a policy for so many episodes of any gymnasium environment.

    Args:
        policy: what acts.
        make: makes the environment.
        windows: how many episodes.
        trading: where equity and prices are found, as for `instrument`.
        conventions: how returns are judged, as for `instrument`.
    """
    records: list[EpisodeRecord] = []
    env = RecordEpisodes(make(), trading=trading, conventions=conventions, on_episode=records.append)
    for _ in range(windows):
        observation, _ = env.reset()
        player = policy.play()
        rewards: list[float] | None = None
        done = False
        while not done:
            (action,) = player.act([observation], rewards)
            observation, reward, terminated, truncated, _ = env.step(action)
            rewards = [float(reward)]
            done = bool(terminated or truncated)
    env.close()  # type: ignore[no-untyped-call]  # gymnasium's
    return Backtest(env.summary.compute(), tuple(records))
