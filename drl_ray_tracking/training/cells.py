"""The cells of a sweep: every agent on every symbol and fold, as the trials of one Tune experiment.

Tune's Tuner takes one trainable with one space. A cell has both of its own, so the search algorithm hands out the
trials of one cell after the other; everything else of Tune sees one experiment.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ray.tune.experiment import Experiment
from ray.tune.search.basic_variant import BasicVariantGenerator
from ray.tune.search.sample import _BackwardsCompatibleNumpyRng

from drl_ray_tracking import names
from drl_ray_tracking.training.config import AgentConfig
from drl_ray_tracking.training.market import Market


@dataclass(frozen=True)
class Cell:
    """One agent on one market: the trials of its seeds and searched values.

    Attributes:
        agent: as configured.
        market: what it trains on and is judged on.
        settings: its `AlgorithmConfig`, searched values as Tune spaces.
    """

    agent: AgentConfig
    market: Market
    settings: Any


def cell_tags(trial: Any) -> Mapping[str, str]:
    """Returns the tags of a trial's cell: its data, window, fold and agent."""
    segments = trial.config.get("env_config", {}).get("segments") or ()
    found: Mapping[str, str] = getattr(segments[0], "tags", {}) if segments else {}
    return found


def market_tags(agent: AgentConfig, market: Market) -> dict[str, str]:
    """Returns what identifies a cell, for the runs of its trials."""
    return {**market.tags(), names.TAG_AGENT: agent.label}


def shared_tags(cells: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Returns the tags that all cells have in common: those of the parent run."""
    first, *others = cells
    return {key: value for key, value in first.items() if all(other.get(key) == value for other in others)}


class CellSearch(BasicVariantGenerator):
    """Hands out the trials of every cell's own space, for its own algorithm.

    What is drawn is drawn once for all seeds: they replicate it. Every cell draws the same, so that folds and symbols
    replicate it, too.

    Args:
        settings: an `AlgorithmConfig` for each cell, seeds and searched values as Tune spaces.
        max_concurrent: trials at once; 0 is as many as there is room for.
        seed: of what is drawn.
    """

    def __init__(self, settings: Sequence[Any], max_concurrent: int = 0, seed: int = 0) -> None:
        super().__init__(max_concurrent=max_concurrent, constant_grid_search=True, random_state=seed)
        self._seed = seed
        self._settings = [(one.algo_class, one.to_dict()) for one in settings]

    def add_configurations(self, experiments: Any) -> None:
        """Takes Tune's one experiment and puts one for each cell in its place; called by Tune."""
        (given,) = experiments if isinstance(experiments, list) else [experiments]
        for algorithm, space in self._settings:
            cell = copy.copy(given)
            run = Experiment.register_if_needed(algorithm)
            cell.spec = {**given.spec, "run": run, "config": space}
            self._random_state = _BackwardsCompatibleNumpyRng(self._seed)
            super().add_configurations([cell])
        self._settings = []  # Tune saves this object with its state
