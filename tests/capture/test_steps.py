"""Chunks of one episode join into the episode that was never cut."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.rllib.connectors.learner import AddOneTsToEpisodesAndTruncate
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode

from drl_ray_tracking.capture.steps import agent_steps_of, steps_of
from tests.capture.episodes import OBSERVATIONS, chunks_of, market, multi_agent_chunks


def same(a: Any, b: Any) -> bool:
    return (
        list(a.infos) == list(b.infos)
        and np.array_equal(a.rewards, b.rewards)
        and np.array_equal(np.asarray(a.actions), np.asarray(b.actions))
        and (a.terminated, a.truncated, a.labels) == (b.terminated, b.truncated, b.labels)
    )


@settings(max_examples=40, deadline=None)
@given(st.sets(st.integers(1, 19)), st.integers(0, 4), st.booleans())
def test_cut_anywhere_is_the_uncut_episode(cuts: set[int], lookback: int, terminated: bool) -> None:
    infos = market(20)
    whole = steps_of(chunks_of(infos, terminated=terminated))
    cut = steps_of(chunks_of(infos, cuts=tuple(cuts), lookback=lookback, terminated=terminated))
    assert (whole.length, len(whole.infos)) == (20, 21)
    assert same(whole, cut)


def test_a_missing_info_is_empty_and_a_gap_in_its_columns() -> None:
    infos: list[Any] = [*market(3), None]
    steps = steps_of(chunks_of(infos))
    assert steps.infos[-1] == {}
    assert steps.last_info == infos[-2]
    assert steps.column("equity", skip_reset=True) == [infos[1]["equity"], infos[2]["equity"], infos[3]["equity"], None]
    assert steps.column("equity", skip_reset=False)[0] == infos[0]["equity"]  # type: ignore[index]


def test_a_key_that_no_info_has_is_no_column() -> None:
    steps = steps_of(chunks_of([{"only_at_reset": 1}, {}, {}]))
    assert steps.column("nothing", skip_reset=False) is None
    assert steps.column("only_at_reset", skip_reset=True) is None
    assert steps.column("only_at_reset", skip_reset=False) == [1, None, None]
    assert steps_of(chunks_of([{}, {}])).last_info == {}


@pytest.mark.parametrize(
    ("space", "action"),
    [
        (gym.spaces.Dict(a=gym.spaces.Discrete(2)), {"a": 1}),
        (gym.spaces.Tuple((gym.spaces.Discrete(2), gym.spaces.Box(0.0, 1.0, (2,)))), (1, np.zeros(2, np.float32))),
    ],
)
@pytest.mark.parametrize("cuts", [(), (2,)])
def test_composite_actions_are_left_out(space: gym.Space[Any], action: Any, cuts: tuple[int, ...]) -> None:
    steps = steps_of(chunks_of(market(4), action_space=space, actions=[action] * 4, cuts=cuts))
    assert list(steps.actions) == []
    assert steps.length == 4


def test_box_actions_keep_their_rows() -> None:
    actions = [np.array([t, -t], np.float32) for t in range(4)]
    space = gym.spaces.Box(-9.0, 9.0, (2,))
    steps = steps_of(chunks_of(market(4), action_space=space, actions=actions, cuts=(1, 2)))
    assert np.array_equal(np.asarray(steps.actions), np.stack(actions))


def learned(chunks: list[Any]) -> list[Any]:
    """What an env runner, which drops idle agents, and a learner in its process leave of the earlier chunks."""
    for chunk in chunks[:-1]:
        for agent in [agent for agent, part in getattr(chunk, "agent_episodes", {}).items() if not len(part)]:
            del chunk.agent_episodes[agent]
        AddOneTsToEpisodesAndTruncate()(rl_module=None, episodes=[chunk], batch={}, shared_data={})
    return chunks


@pytest.mark.parametrize("prepared", [list, learned], ids=["sampled", "learned"])
@pytest.mark.parametrize("cuts", [(), (2,), (4,), (5,), (1, 3, 5)])
def test_agents_of_a_multi_agent_episode(cuts: tuple[int, ...], prepared: Any) -> None:
    found = agent_steps_of(prepared(multi_agent_chunks(cuts=cuts)))
    assert [steps.labels for steps in found] == [
        {"agent": "a0", "module": "even"},
        {"agent": "a1", "module": "odd"},
        {"agent": "a2", "module": "even"},
    ]
    assert [steps.length for steps in found] == [6, 6, 4]
    assert [(steps.terminated, steps.truncated) for steps in found] == [(False, True), (False, True), (True, False)]
    assert [steps.rewards.sum() for steps in found] == [6.0, 12.0, 12.0]
    for uncut, steps in zip(agent_steps_of(multi_agent_chunks()), found, strict=True):
        assert same(uncut, steps)


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize(("terminated", "truncated"), [(True, False), (False, True)])
def test_an_agent_that_is_silent_at_the_end_ends_with_the_whole(terminated: bool, truncated: bool, cut: bool) -> None:
    seen = np.zeros(2, np.float32)
    agents = ("a0", "a1")
    episode = MultiAgentEpisode(
        observation_space=dict.fromkeys(agents, OBSERVATIONS),
        action_space=dict.fromkeys(agents, gym.spaces.Discrete(2)),
        agent_to_module_mapping_fn=lambda agent, _: "shared",
    )
    episode.add_env_reset(observations=dict.fromkeys(agents, seen))
    both: dict[str, Any] = dict.fromkeys(agents, 1)
    episode.add_env_step(dict.fromkeys(agents, seen), both, both)
    chunks = [episode]
    if cut:
        chunks.append(episode.cut(len_lookback_buffer=1))
        episode = learned([episode.to_numpy(), chunks[-1]])[-1]
    ends: dict[str, Any] = {"terminateds": {"__all__": terminated}, "truncateds": {"__all__": truncated}}
    episode.add_env_step({"a0": seen}, {"a0": 1}, {"a0": 1.0}, **ends)
    assert not episode.agent_episodes["a1"].is_done
    if cut:
        del episode.agent_episodes["a1"]  # as the env runner, where it did nothing
    found = agent_steps_of(chunks)
    assert [(steps.length, steps.terminated, steps.truncated) for steps in found] == [
        (2, terminated, truncated),
        (1, terminated, truncated),
    ]


def test_the_learners_artificial_step_is_not_the_episodes() -> None:
    infos = [{"t": t} for t in range(8)]
    expected = steps_of(chunks_of(infos))
    chunks = learned(chunks_of(infos, cuts=(3, 5)))
    assert [len(chunk) for chunk in chunks] == [4, 3, 2], "the connector lengthened what it was given, in place"
    joined = steps_of(chunks)
    assert joined.infos == expected.infos
    assert list(joined.rewards) == list(expected.rewards)
    assert list(joined.actions) == list(expected.actions)
