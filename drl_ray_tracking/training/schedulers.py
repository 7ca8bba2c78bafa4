"""From a configuration's scheduler to Tune's."""

from __future__ import annotations

from typing import Any, Final

from drl_ray_tracking import names
from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.training.algorithms import space_of
from drl_ray_tracking.training.config import SweepConfig
from drl_ray_tracking.training.config_checks import longest_training

_UNBOUNDED: Final = 10**9  # iterations; trials end by something else


def scheduler(config: SweepConfig) -> Any:
    """Returns Tune's scheduler; None where every trial trains to its end.

    Raises:
        ConfigurationError: PBT is to change a key of the environment or the model.
    """
    wanted = config.scheduler
    if wanted is None:
        return None
    from ray.tune.schedulers import ASHAScheduler, PopulationBasedTraining

    if wanted.kind == "asha":
        longest = longest_training(config)
        return ASHAScheduler(
            time_attr=names.ITERATION,
            grace_period=wanted.grace_period,
            reduction_factor=wanted.reduction_factor,
            max_t=longest or _UNBOUNDED,
        )
    nested = [key for key in wanted.mutate if "/" in key]
    if nested:
        raise ConfigurationError(
            f"scheduler.mutate: {', '.join(nested)} cannot change while a trial trains; give keys of the algorithm, "
            "such as lr, entropy_coeff"
        )
    mutations = {
        key: list(dimension.grid) if dimension.grid is not None else space_of(dimension)
        for key, dimension in wanted.mutate.items()
    }
    return PopulationBasedTraining(
        time_attr=names.ITERATION,
        perturbation_interval=wanted.interval,
        hyperparam_mutations=mutations,
    )
