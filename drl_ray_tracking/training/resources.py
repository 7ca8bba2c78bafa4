"""Fits what a trial asks for to what the machine or cluster has: a trial that asks for more waits for ever."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from drl_ray_tracking.training.autoscaling import Cores
from drl_ray_tracking.training.config import ResourceConfig


def fit(settings: Sequence[Any], resources: ResourceConfig, *, trials: int, cores: Cores) -> list[str]:
    """Sets the number of env runners of every algorithm, and returns what was cut, in words.

    Args:
        settings: `AlgorithmConfig`s; changed in place.
        resources: what was asked for; `auto` shares the cores among the trials that can run at once.
        trials: of the whole sweep.
        cores: of the whole cluster. Where an autoscaler brings more, only what it can never bring is cut.
    """
    said: list[str] = []
    for one in settings:
        evaluators = _whole(one.evaluation_num_env_runners)
        per_runner = float(one.num_cpus_per_env_runner or 0)
        fixed = float(one.num_cpus_for_main_process or 0) + _whole(one.num_learners) * _cpus_per_learner(one)
        if resources.env_runners == "auto":
            at_once = max(1, min(trials, resources.max_concurrent or trials, int(cores.to_share // max(1.0, fixed))))
            spare = cores.to_share / at_once - fixed - evaluators * per_runner
            one.env_runners(num_env_runners=max(0, int(spare // per_runner)) if per_runner else 0)
        if per_runner and fixed + (_whole(one.num_env_runners) + evaluators) * per_runner > cores.at_most:
            room = max(0, int((cores.at_most - fixed) // per_runner))
            runners = min(_whole(one.num_env_runners), room)
            kept = min(evaluators, room - runners)
            said.append(
                f"{type(one).__name__.removesuffix('Config')}: {one.num_env_runners} env runners and {evaluators} for "
                f"evaluation do not fit into {cores.at_most:g} cores; {runners} and {kept} are used"
            )
            one.env_runners(num_env_runners=runners)
            one.evaluation(evaluation_num_env_runners=kept)
    return list(dict.fromkeys(said))


def _whole(value: Any) -> int:
    return int(value) if isinstance(value, (int, float)) else 0


def _cpus_per_learner(settings: Any) -> float:
    given = settings.num_cpus_per_learner
    return float(given) if isinstance(given, (int, float)) else 1.0
