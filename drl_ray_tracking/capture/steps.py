"""One finished episode as plain arrays, put together from RLlib's chunks: the input of every source.

Works on duck-typed RLlib episodes and imports nothing of Ray. Five traps are handled here and nowhere
else: RLlib cuts an episode into chunks and keeps the earlier ones in `prev_episode_chunks`; the first
info of every chunk but the first repeats the last of the one before; any info, the last included, can be
None; an earlier chunk holds its actions as arrays, the last one as a list; and where the env runner lives
in the Algorithm's process, the learner has appended an artificial step to the earlier chunks it was given
(RLlib's own `episode_len_mean` counts it).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import itemgetter
from typing import Any, Final

import numpy as np

from drl_ray_tracking.capture.actions import UNCHANGED, SentActions
from drl_ray_tracking.capture.environment import NOWHERE, Environment

_NOTHING: Final[Mapping[str, Any]] = {}


@dataclass(frozen=True, eq=False)
class EpisodeSteps:
    """An episode of T steps.

    `infos` has T + 1 entries, the reset's first; a missing info is an empty mapping. `rewards` has shape
    (T,), `actions` T entries, as the environment was given them, or none where they have no plain form (Dict and Tuple
    spaces).
    `environment` answers what infos do not say.
    """

    infos: Sequence[Mapping[str, Any]]
    rewards: np.ndarray
    actions: Sequence[Any]
    terminated: bool
    truncated: bool
    labels: Mapping[str, str] = field(default_factory=dict)
    environment: Environment = NOWHERE

    @property
    def length(self) -> int:
        """The number of steps T."""
        return len(self.rewards)

    @property
    def last_info(self) -> Mapping[str, Any]:
        """The last info that says anything; empty where none does."""
        return next((info for info in reversed(self.infos) if info), _NOTHING)

    def column(self, key: str, *, skip_reset: bool) -> list[Any] | None:
        """Returns one key of the infos in time order, None in its gaps; None where no info has it.

        Args:
            key: the info key.
            skip_reset: leaves out the reset's info: T values instead of T + 1.
        """
        infos = self.infos[1:] if skip_reset else self.infos
        try:
            return list(map(itemgetter(key), infos)) or None  # every step has it: the usual case, and the fast one
        except KeyError:
            return [info.get(key) for info in infos] if any(key in info for info in infos) else None


def steps_of(
    chunks: Sequence[Any],
    environment: Environment = NOWHERE,
    sent: SentActions = UNCHANGED,
    appended: Sequence[int] | None = None,
) -> EpisodeSteps:
    """Joins the chunks of one RLlib `SingleAgentEpisode`, in time order.

    Args:
        chunks: `[*prev_episode_chunks, episode]`.
        environment: the environment it ran in.
        sent: how its actions were changed on the way to the environment.
        appended: how many artificial steps each chunk has at its end; None finds out by where the next one starts.
    """
    if appended is None:
        appended = [*map(_is_lengthened, chunks, chunks[1:]), 0]
    infos: list[Any] = []
    rewards: list[Any] = []
    actions: list[Any] = []
    plain = True
    for index, (chunk, surplus) in enumerate(zip(chunks, appended, strict=True)):
        length = len(chunk) - surplus
        found = chunk.get_infos()[: length + 1]
        infos.extend(found if index == 0 else found[1:])
        rewards.extend(chunk.get_rewards()[:length])
        taken = chunk.get_actions()
        plain = plain and not (len(taken) and _is_composite(taken))
        if plain:
            actions.extend(taken[:length])
    last = chunks[-1]
    return EpisodeSteps(
        infos=[info if type(info) is dict or isinstance(info, Mapping) else _NOTHING for info in infos],
        rewards=np.asarray(rewards, dtype=np.float64),
        actions=sent(actions, last.action_space) if plain else [],
        terminated=bool(last.is_terminated),
        truncated=bool(last.is_truncated) and not appended[-1],  # the learner says so of what it has lengthened
        environment=environment,
    )


def _is_lengthened(chunk: Any, following: Any) -> bool:
    """Tells a chunk to which the learner has appended its step: the next one starts a step before its end."""
    return len(following) > 0 and following.t_started == chunk.t_started + len(chunk) - 1


def _is_composite(actions: Any) -> bool:
    """Tells actions of a Dict or Tuple space: arrays inside one mapping or tuple, or a list of those."""
    return isinstance(actions, (Mapping, tuple)) or isinstance(actions[0], (Mapping, tuple))


def is_multi_agent(episode: Any) -> bool:
    """Tells an RLlib `MultiAgentEpisode` from a `SingleAgentEpisode`."""
    return hasattr(episode, "agent_episodes")


def agent_steps_of(
    chunks: Sequence[Any], environment: Environment = NOWHERE, sent: SentActions = UNCHANGED
) -> list[EpisodeSteps]:
    """Joins the chunks of one RLlib `MultiAgentEpisode` into the steps of each agent, by agent id.

    An agent's steps are its own: T differs between agents. An agent that is in the episode when the whole
    of it ends, ends with it. Agents that never stepped are left out. Labels: `agent` and `module`.
    """
    last = chunks[-1]
    by_agent: dict[Any, list[tuple[Any, int]]] = {}
    for chunk in chunks:
        # An agent may have no later chunk to compare with; but each time, the learner appends to the id as well.
        surplus = str(chunk.id_).removeprefix(str(last.id_)).count("_")
        for agent, part in chunk.agent_episodes.items():
            by_agent.setdefault(agent, []).append((part, surplus if len(part) > surplus else 0))
    found = []
    for agent in sorted(by_agent, key=str):
        parts, appended = zip(*by_agent[agent], strict=True)
        steps = steps_of(parts, environment, sent, appended)
        if not steps.length:
            continue
        done = steps.terminated or steps.truncated
        found.append(
            replace(
                steps,
                terminated=steps.terminated or (not done and bool(last.is_terminated)),
                truncated=steps.truncated or (not done and bool(last.is_truncated)),
                labels={"agent": str(agent), "module": str(last.module_for(agent))},
            )
        )
    return found
