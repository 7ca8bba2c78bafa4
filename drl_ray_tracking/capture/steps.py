"""One finished episode as plain arrays, put together from RLlib's chunks: the input of every source.

Works on duck-typed RLlib episodes and imports nothing of Ray. Three traps are handled here and nowhere
else: RLlib cuts an episode into chunks and keeps the earlier ones in `prev_episode_chunks`; the first
info of every chunk but the first repeats the last of the one before; the last info can be None.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class EpisodeSteps:
    """An episode of T steps.

    `infos` has T + 1 entries, the reset's first; a missing info is an empty mapping. `rewards` has shape
    (T,), `actions` T entries.
    """

    infos: Sequence[Mapping[str, Any]]
    rewards: np.ndarray
    actions: Sequence[Any]
    terminated: bool
    truncated: bool
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def length(self) -> int:
        """The number of steps T."""
        return len(self.rewards)

    def column(self, key: str, *, skip_reset: bool) -> list[Any] | None:
        """Returns one key of the infos in time order, or None where no info has it.

        Args:
            key: the info key.
            skip_reset: leaves out the reset's info: T values instead of T + 1.
        """
        infos = self.infos[1:] if skip_reset else self.infos
        if not infos or key not in infos[-1]:
            return None
        return [info.get(key) for info in infos]


def steps_of(chunks: Sequence[Any]) -> EpisodeSteps:
    """Joins the chunks of one RLlib `SingleAgentEpisode`, in time order.

    Args:
        chunks: `[*prev_episode_chunks, episode]`.
    """
    infos: list[Mapping[str, Any]] = []
    rewards: list[Any] = []
    actions: list[Any] = []
    for index, chunk in enumerate(chunks):
        found = list(chunk.get_infos())
        infos.extend(found if index == 0 else found[1:])
        rewards.extend(chunk.get_rewards())
        actions.extend(chunk.get_actions())
    last = chunks[-1]
    return EpisodeSteps(
        infos=[info if isinstance(info, Mapping) else {} for info in infos],
        rewards=np.asarray(rewards, dtype=np.float64),
        actions=actions,
        terminated=bool(last.is_terminated),
        truncated=bool(last.is_truncated),
    )
