"""A loaded policy does what RLlib's own env runner did, observation by observation."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from drl_ray_tracking.errors import ConfigurationError, TrackingError
from drl_ray_tracking.models import Policy
from tests.models.conftest import STEPS, Trained

pytestmark = [
    pytest.mark.ray,
    # Each runner of a process registers RLlib's environment name again.
    pytest.mark.filterwarnings("ignore:.*Overriding environment:UserWarning"),
]
Get = Callable[[str], Trained]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("kind", ["discrete", "continuous", "sac", "recurrent"])
def test_played_again_every_action_is_the_same(trained: Get, kind: str) -> None:
    one = trained(kind)
    policy = Policy.load(one.checkpoint)
    assert policy.recurrent == (kind == "recurrent")
    steps = 0
    for episode in one.episodes:
        player = policy.play()
        for observation, action in episode:
            (own,) = player.act([observation])
            np.testing.assert_array_equal(own, action)
            steps += 1
    assert steps >= STEPS


@pytest.mark.parametrize("kind", ["discrete", "continuous", "sac"])
def test_a_batch_of_another_shape_gives_the_same_actions(trained: Get, kind: str) -> None:
    """A forward pass of another batch shape differs in its last bits: discrete actions are equal all the same."""
    one = trained(kind)
    observations = np.array([observation for episode in one.episodes for observation, _ in episode])
    expected = np.array([action for episode in one.episodes for _, action in episode])
    policy = Policy.load(one.checkpoint)
    actions = policy.predict(observations)
    assert actions.dtype == policy.action_space.dtype
    if kind == "discrete":
        np.testing.assert_array_equal(actions, expected)
    else:
        np.testing.assert_allclose(actions, expected.reshape(actions.shape), atol=1e-6)
        assert np.ptp(actions) > 0
    again = policy.predict(observations)
    np.testing.assert_array_equal(again, actions, "being asked changes nothing")


def test_a_recurrent_policy_takes_rows_for_one_episode(trained: Get) -> None:
    one = trained("recurrent")
    episode = max(one.episodes, key=len)
    actions = Policy.load(one.checkpoint).predict([observation for observation, _ in episode])
    np.testing.assert_array_equal(actions, [action for _, action in episode])


def test_several_agents(trained: Get) -> None:
    one = trained("agents")
    policy = Policy.load(one.checkpoint)
    assert policy.multi_agent
    for episode in one.episodes[:5]:
        columns = {agent: np.array([shown[agent] for shown, _ in episode]) for agent in ("left", "right")}
        actions = policy.predict(columns)
        for agent, own in actions.items():
            np.testing.assert_array_equal(own, [action[agent] for _, action in episode])


def test_it_needs_no_ray_that_runs(trained: Get) -> None:
    code = (
        "import sys, numpy, ray\n"
        "from drl_ray_tracking.models import Policy\n"
        "policy = Policy.load(sys.argv[1])\n"
        "print(policy.predict(numpy.zeros((2, 4), 'float32')).shape, ray.is_initialized())\n"
    )
    command = [sys.executable, "-c", code, str(trained("discrete").checkpoint)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[-2] == "(2,) False"


def test_what_does_not_fit_is_said(trained: Get, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no checkpoint of an RLlib algorithm"):
        Policy.load(tmp_path)
    policy = Policy.load(trained("discrete").checkpoint)
    with pytest.raises(TrackingError, match=r"shape \(4,\); \(n, 4\) is needed"):
        policy.predict(np.zeros(4))
    with pytest.raises(TrackingError, match="no observation"):
        policy.predict(np.zeros((0, 4)))
    with pytest.raises(TrackingError, match="2 observations were given for 1 slots"):
        policy.play().act([np.zeros(4)] * 2)
    agents = Policy.load(trained("agents").checkpoint)
    with pytest.raises(TrackingError, match="agents are"):
        agents.predict(np.zeros((1, 4)))
