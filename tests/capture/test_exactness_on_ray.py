"""On a real Ray: the same episodes give the same numbers, however they are dealt to workers and slots."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from drl_ray_tracking import names
from drl_ray_tracking.capture.instrument import instrument
from drl_ray_tracking.capture.measured import Measurement, kpis
from tests.capture.algorithms import Dealt, dealt_infos, small_ppo
from tests.capture.episodes import chunks_of

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore")]

LENGTHS = (3, 11, 5, 2, 17, 8, 8, 1, 23, 4, 6, 13)
RETURNS = [0.1 * n * (n + 1) / 2 for n in LENGTHS]


def expected() -> dict[str, float]:
    def chunks(number: int, length: int) -> list[Any]:
        rewards = [0.1 * t for t in range(1, length + 1)]
        infos = dealt_infos(number, length)
        return chunks_of(infos, actions=[np.int64(0)] * length, rewards=rewards, terminated=True)

    def fail(where: str, error: Exception) -> None:
        raise AssertionError(where) from error

    return dict(kpis([Measurement().of(chunks(*each), fail)[0] for each in enumerate(LENGTHS)]))


@pytest.mark.parametrize(
    ("runners", "slots", "fragment", "mode"),
    [
        (0, 1, "auto", "SYNC"),
        (0, 3, 5, "SYNC"),
        (0, 3, "auto", "ASYNC"),
        (1, 3, 5, "SYNC"),
        (2, 1, 7, "SYNC"),
        (2, 3, "auto", "SYNC"),
        (4, 1, "auto", "SYNC"),
    ],
)
def test_any_layout_gives_the_same_bits(
    ray_session: None, tmp_path: Path, runners: int, slots: int, fragment: Any, mode: str
) -> None:
    config = small_ppo(Dealt, {"folder": str(tmp_path), "lengths": LENGTHS}, batch=840)
    config.env_runners(num_env_runners=runners, num_envs_per_env_runner=slots, rollout_fragment_length=fragment)
    config.env_runners(gym_env_vectorize_mode=gym.VectorizeMode[mode], num_cpus_per_env_runner=0.25)
    algorithm = instrument(config).build_algo()
    try:
        result = algorithm.train()
    finally:
        algorithm.stop()
    runners_group = result["env_runners"]
    flat = dict(
        names.flatten({group: runners_group[group] for group in names.CAPTURED_GROUPS if group in runners_group})
    )
    assert flat == expected()
    assert flat["episode/return_mean"] == pytest.approx(np.mean(RETURNS), rel=1e-12)
    print(
        f"\n{runners} env runners x {slots} slots ({mode}): exact mean return {flat['episode/return_mean']:.4f}, "
        f"RLlib's own {runners_group['episode_return_mean']:.4f}"
    )
