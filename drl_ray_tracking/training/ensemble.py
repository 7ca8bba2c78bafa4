"""Ensembles: several trained agents that decide together, by majority, by weights or by their mean.

An ensemble acts as a policy does (`play`, then `act`), so it is backtested, tested and tracked like an agent.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import numpy as np

from drl_ray_tracking.errors import ConfigurationError, TrackingError

Vote = Literal["majority", "weighted", "mean"]
VOTES: Final = get_args(Vote)


@dataclass(frozen=True)
class Ensemble:
    """Acts on what its members would do, each for itself, at every step.

    Attributes:
        members: policies with `play(slots)`, whose players have `act(observations)`; `models.Policy` and
            `models.FrozenPolicy` are such. They need the same observations and actions.
        vote: "majority" takes the action most members choose, "weighted" the one whose members weigh most, and of
            equal ones that of the first member; "mean" averages, weighted where there are weights: the action for
            continuous ones, and for whole numbers (positions in order) the nearest to the average, of two equally
            near ones the lower.
        weights: one a member, not negative; None for equal ones. "weighted" needs them.

    Raises:
        ConfigurationError: naming everything that is wrong.
    """

    members: tuple[Any, ...]
    vote: Vote = "majority"
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        problems = []
        if len(self.members) < 2:
            problems.append(f"it has {len(self.members)} members, at least 2 decide together")
        if self.vote not in VOTES:
            problems.append(f"vote is {self.vote!r}; allowed are {', '.join(VOTES)}")
        if self.vote == "weighted" and self.weights is None:
            problems.append("vote 'weighted' needs weights, one a member")
        if self.vote == "majority" and self.weights is not None:
            problems.append("vote 'majority' takes no weights; 'weighted' does")
        weights = self.weights or ()
        if self.weights is not None and len(weights) != len(self.members):
            problems.append(f"{len(weights)} weights were given for {len(self.members)} members")
        if any(not (math.isfinite(weight) and weight >= 0.0) for weight in weights) or (weights and sum(weights) <= 0):
            problems.append(f"weights are {weights}; finite numbers of 0 or more, not all 0, are needed")
        if problems:
            raise ConfigurationError("ensemble: " + "; ".join(problems))

    def play(self, slots: int = 1) -> _Panel:
        """Returns a player for so many episodes at once, each at its first observation."""
        return _Panel(self, [member.play(slots) for member in self.members])


class _Panel:
    """Plays episodes by the votes of the members' players."""

    def __init__(self, ensemble: Ensemble, players: Sequence[Any]) -> None:
        self._ensemble = ensemble
        self._players = players

    def act(self, observations: Sequence[Any], rewards: Sequence[float] | None = None) -> list[Any]:
        """Returns one action for the next observation of each episode; see `models.Player`."""
        asked = [player.act(observations, rewards) for player in self._players]
        weights = self._ensemble.weights or (1.0,) * len(asked)
        return [decided(self._ensemble.vote, votes, weights) for votes in zip(*asked, strict=True)]


def decided(vote: Vote, votes: Sequence[Any], weights: Sequence[float]) -> Any:
    """Returns what a panel does.

    Args:
        vote: as of `Ensemble`.
        votes: one action a member.
        weights: one a member.

    Raises:
        TrackingError: a majority among actions that are no whole numbers: no two members ever agree on one.
    """
    first = np.asarray(votes[0])
    whole = first.dtype.kind in "iu"
    if vote == "mean":
        stacked = np.stack([np.asarray(one, dtype=np.float64) for one in votes])
        mean = np.average(stacked, axis=0, weights=weights)
        return (np.ceil(mean - 0.5) if whole else mean).astype(first.dtype)
    if not whole:
        raise TrackingError(f"vote {vote!r} is for whole-number actions, these are {first.dtype}: give vote='mean'")
    counted: Counter[tuple[int, ...]] = Counter()
    for one, weight in zip(votes, weights, strict=True):
        counted[tuple(np.asarray(one).reshape(-1).tolist())] += weight  # type: ignore[assignment]
    most = max(counted.values())
    winner = next(action for action, weight in counted.items() if math.isclose(weight, most, rel_tol=1e-12))
    return np.asarray(winner, dtype=first.dtype).reshape(first.shape)
