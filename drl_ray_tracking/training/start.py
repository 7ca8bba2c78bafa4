"""Continued training: every trial of a sweep begins with the weights of a model, and its run says of which.

What is taken over are the modules' weights and the state of the connectors before them (observation filters);
optimizers, counters and exploration begin anew. A trial that Tune restores goes on from its own checkpoint.
"""

from __future__ import annotations

import functools
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from drl_ray_tracking import names
from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.tracking.storage import download

_MODULES: Final = "learner_group/learner/rl_module"
_CONNECTORS: Final = "env_runner/env_to_module_connector"


@dataclass(frozen=True)
class StartingPoint:
    """Where trials begin.

    Attributes:
        model: what runs and versions name as their parent, such as `models:/googl-agent/3`.
        address: where every node finds its checkpoint: a path, or what pyarrow opens.
        run_id, step: of the run it is a checkpoint of, and its env steps; "" where that is not known.
    """

    model: str
    address: str
    run_id: str = ""
    step: str = ""

    def tags(self) -> dict[str, str]:
        """Returns what names the parent on every run that goes on from it."""
        known = {
            names.TAG_CONTINUED_FROM: self.model,
            names.TAG_CONTINUED_RUN: self.run_id,
            names.TAG_CONTINUED_STEP: self.step,
        }
        return {key: value for key, value in known.items() if value}

    def attach(self, settings: Any) -> None:
        """Makes the algorithms of a configuration begin here; the configuration, and so its hash, says so."""
        settings.callbacks(on_algorithm_init=functools.partial(begin, self))
        settings.start_from = self.model


def begin(start: StartingPoint, *, algorithm: Any, **_: Any) -> None:
    """Loads the weights into a new algorithm; called by RLlib.

    Raises:
        ConfigurationError: they cannot be had from here, or do not fit the algorithm's module.
    """
    with tempfile.TemporaryDirectory(prefix="drl-start-") as scratch:
        folder = Path(start.address)
        if "://" in start.address:
            folder = Path(scratch) / "checkpoint"
            download(start.address, folder)
        if not (folder / _MODULES).is_dir():
            raise ConfigurationError(
                f"start_from: there is no checkpoint of {start.model} at {start.address} on this node: is it on "
                "storage that all nodes share?"
            )
        try:
            algorithm.restore_from_path(str(folder / _MODULES), component=_MODULES)
            if (folder / _CONNECTORS).is_dir():
                algorithm.restore_from_path(str(folder / _CONNECTORS), component=_CONNECTORS)
        except (RuntimeError, KeyError, ValueError) as error:
            raise ConfigurationError(
                f"start_from: {start.model} does not fit this agent, whose observations, actions and layers must be "
                f"those it was trained with: {str(error).splitlines()[0][:300]}"
            ) from error
    algorithm.env_runner_group.sync_weights(from_worker_or_learner_group=algorithm.learner_group, inference_only=True)
