"""What of a sweep's configuration does not fit together, or would be taken and then ignored; said before Ray starts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np

from drl_ray_tracking import names
from drl_ray_tracking.episodes import EpisodeRecord, EpisodeSummary
from drl_ray_tracking.names import suggestion

if TYPE_CHECKING:
    from drl_ray_tracking.training.config import EnsembleConfig, SweepConfig

# Keys of an AlgorithmConfig that other sections own: what `agents.training` says of them would be overwritten.
OWNED: Final = {
    "callbacks_class": "callbacks",
    "env": "env_class",
    "env_config": "env",
    "evaluation_config": "env",
    "evaluation_duration": "evaluation.window",
    "evaluation_duration_unit": "evaluation.window",
    "evaluation_interval": "evaluation.interval",
    "evaluation_num_env_runners": "evaluation.runners",
    "num_env_runners": "resources.env_runners",
    "num_envs_per_env_runner": "resources.envs_per_runner",
    "seed": "seeds",
}
_TUNES_OWN: Final = ("iterations_since_restore", "time_since_restore", "time_total_s", "timesteps_total")
_STOPS: Final = (names.ITERATION, names.LIFETIME_STEPS, "time_total_s")
_CHECKED_GROUPS: Final = ("episode", "trading")  # the others depend on the environment
_SCHEDULERS_OWN: Final = {"grace_period": "asha", "reduction_factor": "asha", "interval": "pbt"}


def problems_of(config: SweepConfig, cells: int | None = None) -> list[str]:
    """Returns everything that does not fit together, in words.

    Args:
        config: whose parts are valid each for itself.
        cells: how many agents on markets and folds there are, where the data are given in code.
    """
    return [
        *_data_problems(config),
        *_name_problems(config),
        *_metric_problems(config),
        *_ignored(config),
        *_ensemble_problems(config),
        *_scheduler_problems(config, cells or _cells(config)),
    ]


def notes_on(config: SweepConfig) -> list[str]:
    """Returns what a person should know of a configuration that is allowed."""
    wanted, interval = config.scheduler, config.evaluation.interval
    if wanted is None or wanted.kind != "asha" or wanted.grace_period >= interval:
        return []
    if not names.tune_path(config.objective.metric).startswith(f"{names.EVALUATION}/"):
        return []
    grace = f"scheduler.grace_period is {wanted.grace_period}, but agents are evaluated every {interval} iterations"
    return [f"{grace}: asha may stop trials that were never evaluated. Set grace_period: {interval}"]


def _cells(config: SweepConfig) -> int:
    folds = config.walk_forward.folds if config.walk_forward is not None else 1
    return len(config.agents) * len(config.markets) * folds


def _data_problems(config: SweepConfig) -> Iterator[str]:
    if config.walk_forward is not None and "split" in config.model_fields_set:
        yield "give `split` or `walk_forward`, not both: the folds say how history is cut"
    if config.wants_test and config.tracking.offline:
        yield "looks at test bars are counted in the store: set `walk_forward.test: false`, or not `offline`"


def _name_problems(config: SweepConfig) -> Iterator[str]:
    labels = [agent.label for agent in config.agents]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        yield f"agents need names of their own; {', '.join(twice)} is several: give each a `name`"
    for index, ensemble in enumerate(config.ensembles):
        unknown = sorted(set(ensemble.agents or ()) - set(labels))
        if unknown:
            yield f"ensembles[{index}] names {', '.join(unknown)}; agents are {', '.join(labels)}"


def _metric_problems(config: SweepConfig) -> Iterator[str]:
    named = [*((f"stop.{key}", key) for key in config.stop), ("objective.metric", config.objective.metric)]
    for where, key in named:
        if _is_metric(key):
            continue
        meant = suggestion(key, [*_STOPS, *_names()])
        # A callback of the user's may put anything into a result; what is nearly ours is a slip all the same.
        if meant or not config.callbacks:
            allowed = (
                f"allowed: {', '.join(_STOPS)}, or a metric such as {names.DEFAULT_METRIC}, train/episode/return_mean"
            )
            yield f"{where}: no result has {key!r}{meant or f'; {allowed}'}"


def _is_metric(key: str) -> bool:
    """Tells whether results have a metric, given by either of its names."""
    path = names.tune_path(key)
    if path in _TUNES_OWN or path.startswith((f"{names.LEARNERS}/", "timers/", "fault_tolerance/")):
        return True
    for prefix in (f"{names.ENV_RUNNERS}/", f"{names.EVALUATION}/{names.ENV_RUNNERS}/"):
        if path.startswith(prefix):
            rest = path.removeprefix(prefix)
            group, _, kpi = rest.partition("/")
            if group in _CHECKED_GROUPS:
                return (f"{group}/{kpi.split('/')[-1]}" if kpi.startswith("by_symbol/") else rest) in known_kpis()
            return not kpi or group in names.CAPTURED_GROUPS or names.published_name(path) is not None
    return names.published_name(path) is not None


@lru_cache(maxsize=1)
def known_kpis() -> frozenset[str]:
    """Returns the KPIs that episodes of a trading environment have, such as `trading/sharpe`."""
    bars = np.ones(3)
    record = EpisodeRecord(
        episode_return=0.0, length=2, truncated=True, equity=bars, position=bars[1:], price=bars, fee=bars[1:]
    )
    found = EpisodeSummary.of(record).compute()
    undefined = (key.removeprefix("undefined/").rpartition("/")[0] for key in found if key.startswith("undefined/"))
    return frozenset({*(key for key in found if not key.startswith("undefined/")), *undefined})


def _names() -> list[str]:
    kpis = sorted(kpi for kpi in known_kpis() if kpi.startswith(tuple(f"{group}/" for group in _CHECKED_GROUPS)))
    return [
        *(f"{split}/{kpi}" for split in ("eval", "train") for kpi in kpis),
        "progress/iteration",
        "progress/env_steps",
    ]


def _ignored(config: SweepConfig) -> Iterator[str]:
    for agent in config.agents:
        yield from _owned(f"agents, {agent.label}: training", agent.training)
        yield from _owned(f"agents, {agent.label}: search", agent.search)
    yield from _owned("search", config.search)
    if config.env_class is not None and config.evaluation.window is not None:
        yield "evaluation.window cuts the windows of the built-in environment: leave it out with `env_class`"


def _owned(where: str, keys: Iterable[str]) -> Iterator[str]:
    for key in keys:
        if key in OWNED:
            yield f"{where}.{key} would be overwritten: it is set by `{OWNED[key]}`"


def _ensemble_problems(config: SweepConfig) -> Iterator[str]:
    searched = sorted(
        {
            key
            for search in (config.search, *(agent.search for agent in config.agents))
            for key in search
            if key.startswith("env/")
        }
    )
    if config.ensembles and searched:
        yield f"ensembles need one environment for all members: search no key of `env/` ({', '.join(searched)})"
    for index, ensemble in enumerate(config.ensembles):
        members = len(_members(config, ensemble)) * len(set(config.seeds))
        if members < 2:
            yield f"ensembles[{index}] has {members} member: give it at least two agents or seeds"
        if ensemble.vote == "majority" and config.env_class is None and config.env.get("actions") == "continuous":
            yield f"ensembles[{index}]: a majority needs discrete actions; of continuous ones take the mean"


def _members(config: SweepConfig, ensemble: EnsembleConfig) -> list[str]:
    return [agent.label for agent in config.agents if ensemble.agents is None or agent.label in ensemble.agents]


def _scheduler_problems(config: SweepConfig, cells: int) -> Iterator[str]:
    wanted = config.scheduler
    if wanted is None:
        return
    for key, kind in _SCHEDULERS_OWN.items():
        if kind != wanted.kind and getattr(wanted, key) != type(wanted).model_fields[key].default:
            yield f"scheduler.{key} is {kind}'s; {wanted.kind} does not know it"
    if wanted.kind == "pbt" and cells > 1:
        yield "pbt copies trials onto each other: give it one agent, one market and no folds"
    if wanted.kind == "asha" and cells > len(config.agents):  # agents may compete, on the same bars
        yield "asha stops the trials that are worse than others: give it one market and no folds"
    longest = longest_training(config)
    if wanted.kind == "asha" and longest is not None and wanted.grace_period > longest:
        yield f"scheduler.grace_period is {wanted.grace_period}, but trials end after {longest} iterations: give less"


def longest_training(config: SweepConfig) -> int | None:
    """Returns after how many iterations trials stop, by either of that metric's names; None where they need not."""
    given = [int(value) for key, value in config.stop.items() if names.tune_path(key) == names.ITERATION]
    return min(given) if given else None
