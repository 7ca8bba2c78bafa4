"""Real RLlib episode objects with known content, whole or cut as an env runner cuts them."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

OBSERVATIONS = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
_SEEN = np.zeros(2, np.float32)


def market(length: int, seed: int = 0, **labels: Any) -> list[dict[str, Any]]:
    """T + 1 infos as `TradingEnv` gives them."""
    rng = np.random.default_rng(seed)
    equity = 1e4 * np.cumprod(1.0 + rng.normal(0.0005, 0.01, length + 1))
    price = 100.0 * np.cumprod(1.0 + rng.normal(0.0005, 0.01, length + 1))
    return [
        {
            "equity": float(equity[t]),
            "position": float(rng.integers(-1, 2)),
            "price": float(price[t]),
            "fee": float(t % 3),
            "traded": 10.0 * (t % 3),
            "timestamp": 86_400.0 * t,
            "periods_per_year": 252.0,
            "reward_components": {"market": 0.5, "cost": -0.25},
            **labels,
        }
        for t in range(length + 1)
    ]


def chunks_of(
    infos: list[Any],
    *,
    cuts: tuple[int, ...] = (),
    lookback: int = 1,
    action_space: gym.Space[Any] | None = None,
    actions: list[Any] | None = None,
    rewards: list[float] | None = None,
    terminated: bool = False,
) -> list[Any]:
    """The chunks of an episode of `len(infos) - 1` steps, cut after the steps named; earlier ones are numpy'd."""
    space = action_space or gym.spaces.Discrete(3)
    length = len(infos) - 1
    taken = [np.int64(t % 3) for t in range(length)] if actions is None else actions
    earned = [0.5 * t for t in range(length)] if rewards is None else rewards
    episode = SingleAgentEpisode(observation_space=OBSERVATIONS, action_space=space)
    episode.add_env_reset(_SEEN, infos[0])
    chunks = []
    for t in range(1, length + 1):
        last = t == length
        episode.add_env_step(
            _SEEN,
            taken[t - 1],
            earned[t - 1],
            infos[t],
            terminated=last and terminated,
            truncated=last and not terminated,
        )
        if t in cuts and not last:
            following = episode.cut(len_lookback_buffer=lookback)
            chunks.append(episode.to_numpy())
            episode = following
    return [*chunks, episode]


def multi_agent_chunks(length: int = 6, *, cuts: tuple[int, ...] = (), leaves_at: int = 4) -> list[Any]:
    """Agents a0, a1 (module even, odd) act in every step; a2 (module even) is terminated at `leaves_at`."""
    agents = ("a0", "a1", "a2")
    infos = {agent: market(length, seed=number, symbol="X") for number, agent in enumerate(agents)}
    episode = MultiAgentEpisode(
        observation_space=dict.fromkeys(agents, OBSERVATIONS),
        action_space=dict.fromkeys(agents, gym.spaces.Discrete(3)),
        agent_to_module_mapping_fn=lambda agent, _: "odd" if agent == "a1" else "even",
    )
    episode.add_env_reset(observations=dict.fromkeys(agents, _SEEN), infos={agent: infos[agent][0] for agent in agents})
    chunks = []
    there = list(agents)
    for t in range(1, length + 1):
        last = t == length
        leaving = {"a2"} if t == leaves_at else set()
        episode.add_env_step(
            observations=dict.fromkeys(there, _SEEN),
            actions=dict.fromkeys(there, np.int64(t % 3)),
            rewards={agent: 1.0 + agents.index(agent) for agent in there},
            infos={agent: infos[agent][t] for agent in there},
            terminateds={**dict.fromkeys(leaving, True), "__all__": False},
            truncateds={"__all__": last},
        )
        there = [agent for agent in there if agent not in leaving]
        if t in cuts and not last:
            following = episode.cut(len_lookback_buffer=1)
            chunks.append(episode.to_numpy())
            episode = following
    return [*chunks, episode]
