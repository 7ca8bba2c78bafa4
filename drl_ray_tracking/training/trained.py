"""From Tune's results to trained agents: which checkpoint each is, and how it did on its validation bars."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np

from drl_ray_tracking import names
from drl_ray_tracking.episodes import Conventions, EpisodeRecord
from drl_ray_tracking.training.config import SweepConfig
from drl_ray_tracking.training.service import TrainedAgent
from drl_ray_tracking.trials.metrics import MetricSelection

_EVERYTHING: Final = MetricSelection("vocabulary", (), ())
_LONGEST_ERROR: Final = 2000


def trained_agents(results: Any, config: SweepConfig, run_ids: Mapping[str, str]) -> tuple[TrainedAgent, ...]:
    """Returns an agent for each trial, in the order of their cells.

    The checkpoint is the one that was best by the objective when it was evaluated; of equal ones the earliest.

    Args:
        results: Tune's `ResultGrid`.
        config: of the sweep.
        run_ids: MLflow's run of each trial that is in the store.
    """
    agents = [_agent(result, config, run_ids) for result in results]
    seen: dict[str, int] = {}
    named = []
    for agent in agents:
        seen[agent.name] = number = seen.get(agent.name, 0) + 1
        named.append(agent if number == 1 else replace(agent, name=f"{agent.name}-{number}"))
    return tuple(named)


def _agent(result: Any, config: SweepConfig, run_ids: Mapping[str, str]) -> TrainedAgent:
    given = result.config or {}
    segments = given.get("env_config", {}).get("segments") or ()
    tags = dict(getattr(segments[0], "tags", {})) if segments else {}
    label = tags.get(names.TAG_AGENT, "agent")
    agent = next((one for one in config.agents if one.label == label), config.agents[0])
    symbol, fold, seed = tags.get(names.TAG_SYMBOLS, ""), tags.get(names.TAG_FOLD), int(given.get("seed") or 0)
    parts = (label, symbol, f"f{fold}" if fold is not None else "", f"s{seed}")
    trial_id = str((result.metrics or {}).get("trial_id", ""))
    checkpoint, reported = best_checkpoint(result, config)
    searched = {**config.search, **agent.search}
    error = None if result.error is None else str(result.error).strip()[-_LONGEST_ERROR:]
    return TrainedAgent(
        name="-".join(part for part in parts if part),
        algorithm=agent.algorithm,
        symbols=tuple(symbol.split(",")),
        seed=seed,
        fold=int(fold) if fold is not None else None,
        params={key: _value(given, key) for key in searched},
        metrics=_measured(reported, config.objective.metric),
        episodes=_validation(result, reported),
        checkpoint=checkpoint,
        run_id=run_ids.get(trial_id),
        error=error,
        tags={**tags, names.TAG_TRIAL_ID: trial_id},
    )


def _measured(reported: Mapping[str, Any], objective: str) -> dict[str, float]:
    """Returns a result's validation metrics, and what the sweep is about, whatever that is."""
    found = {key: value for key, value in _EVERYTHING.select(reported).items() if key.startswith("eval/")}
    value = names.finite(dict(names.flatten(reported)).get(names.tune_path(objective)))
    return found if value is None else {**found, names.mlflow_name(objective): value}


def best_checkpoint(result: Any, config: SweepConfig) -> tuple[str | None, Mapping[str, Any]]:
    """Returns where a trial's best evaluated checkpoint is, and the result it belongs to.

    Without an evaluated one it is the last checkpoint, and without any None and the last result.
    """
    path = names.tune_path(config.objective.metric)
    sign = 1.0 if config.objective.mode == "max" else -1.0
    best: tuple[float, Any, Mapping[str, Any]] | None = None
    for checkpoint, reported in sorted(result.best_checkpoints or (), key=lambda item: item[1].get(names.ITERATION, 0)):
        value = names.finite(dict(names.flatten(reported)).get(path))
        score = -math.inf if value is None or reported.get(names.EVALUATED) is False else sign * value
        if best is None or score > best[0]:
            best = (score, checkpoint, reported)
    if best is not None and best[0] > -math.inf:
        return _address(best[1]), best[2]
    return (None if result.checkpoint is None else _address(result.checkpoint)), result.metrics or {}


def _address(checkpoint: Any) -> str:
    from drl_ray_tracking.trials.place import storage_uri

    return storage_uri(checkpoint.filesystem, checkpoint.path)


def _value(given: Mapping[str, Any], key: str) -> Any:
    group, _, rest = key.partition("/")
    if group == "env" and rest:
        return given.get("env_config", {}).get(rest)
    if group == "model" and rest:
        return (given.get("_model_config") or given.get("model_config") or {}).get(rest)
    return given.get(key)


def _validation(result: Any, reported: Mapping[str, Any]) -> dict[str, tuple[EpisodeRecord, ...]]:
    iteration = int(reported.get(names.ITERATION) or 0)
    try:
        table = _series(result, iteration)
    except FileNotFoundError:  # nothing is traded, or this iteration was not evaluated
        return {}
    return {"validation": episodes_of(table)}


def _series(result: Any, iteration: int) -> Any:
    import pyarrow.parquet as pq

    path = f"{result.path}/{names.SERIES_DIR}/iteration-{iteration:06d}.parquet"
    filesystem = result.filesystem
    if not path.startswith("/"):
        path = path.partition("://")[2] or path
    with filesystem.open_input_file(path) as stream:
        return pq.read_table(stream)


def episodes_of(table: Any) -> tuple[EpisodeRecord, ...]:
    """Returns the episodes of an evaluation's bars, as `capture.series` wrote them, in time."""
    frame = table.to_pandas()
    records = []
    for _, bars in frame.groupby("episode", sort=True):
        rewards = bars["reward"].to_numpy()[1:]
        periods = float(bars["periods_per_year"].iloc[0])
        price = bars["price"].to_numpy()
        position, fee = bars["position"].to_numpy()[1:], bars["fee"].to_numpy()[1:]
        records.append(
            EpisodeRecord(
                episode_return=float(np.nansum(rewards)),
                length=len(bars) - 1,
                truncated=True,
                equity=bars["equity"].to_numpy(),
                position=None if np.isnan(position).all() else position,
                price=None if np.isnan(price).all() else price,
                fee=None if np.isnan(fee).all() else fee,
                timestamp=bars["timestamp"].to_numpy(),
                labels={key: str(bars[key].iloc[0]) for key in ("symbol", "window", "split", "fold")},
                conventions=Conventions(periods_per_year=periods if math.isfinite(periods) else None),
            )
        )
    return tuple(sorted(records, key=_begins))


def _begins(record: EpisodeRecord) -> float:
    stamps = record.timestamp
    assert stamps is not None
    return float(stamps[0]) if stamps.dtype.kind in "fiu" else 0.0
