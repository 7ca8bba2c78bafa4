"""Judges the runs of a store by rules, from the evaluation bars each run kept, and writes the verdicts there.

The last evaluation counts: it is that of the weights a run ended with.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import pandas as pd

from drl_ray_tracking import names
from drl_ray_tracking.analysis.runset import RunSet
from drl_ray_tracking.analysis.trace import traces
from drl_ray_tracking.episodes import EpisodeRecord
from drl_ray_tracking.errors import ConfigurationError, DataError, TrackingError
from drl_ray_tracking.tracking.mlflow_sink import MlflowSink, bounded_requests
from drl_ray_tracking.tracking.sink import MetricPoint
from drl_ray_tracking.training.rules import Rules, Ruling, judge_episodes
from drl_ray_tracking.training.service import TrainedAgent

_log = logging.getLogger(__name__)
_NO_RULE: Final = "not among the rules it was last judged by"


def judge_runs(runs: RunSet, rules: Rules, *, write: bool = True) -> dict[str, Ruling]:
    """Returns what rules say of each run, by run id, and writes it on the runs as tags and metrics.

    Args:
        runs: as `load_runs` returned them. A run without evaluation bars breaks every rule.
        rules: see `load_rules`.
        write: False only judges.

    Raises:
        ConfigurationError: the runs are not of a store that can be written.
    """
    if write and not runs.tracking_uri:
        raise ConfigurationError("these runs were not read from a tracking store: write=False only judges them")
    sink = MlflowSink(runs.tracking_uri) if write else None
    rulings: dict[str, Ruling] = {}
    now = int(time.time() * 1000)
    for run_id in map(str, runs.runs.index):
        episodes, step = last_evaluation(runs, run_id)
        ruling = rulings[run_id] = judge_episodes(rules, episodes)
        if sink is not None:
            points = [MetricPoint(key, value, now, step) for key, value in ruling.metrics().items()]
            with bounded_requests():
                _write(sink, run_id, points, ruling.tags())
    return rulings


def judge_agents(
    agents: Sequence[TrainedAgent],
    rules: Rules | None,
    tracking_uri: str,
    *,
    tags: Mapping[str, str] | None = None,
) -> dict[str, Ruling]:
    """Returns what rules say of trained agents, by their names, and writes it on the runs that track them.

    What cannot be written now is said, and left out: the training is done.

    Args:
        agents: judged are their validation episodes.
        rules: None only writes the tags.
        tracking_uri: of the store that has the agents' runs.
        tags: written on every run as well.
    """
    sink = MlflowSink(tracking_uri)
    rulings: dict[str, Ruling] = {}
    for agent in agents:
        written = dict(tags or {})
        points: list[MetricPoint] = []
        if rules is not None:
            ruling = rulings[agent.name] = judge_episodes(rules, agent.episodes.get("validation", ()))
            written |= ruling.tags()
            now = int(time.time() * 1000)
            points = [MetricPoint(key, value, now, 0) for key, value in ruling.metrics().items()]
        if agent.run_id is None:
            _log.warning("%s is not in the store yet: its run gets no verdict", agent.name)
            continue
        try:
            with bounded_requests():
                _write(sink, agent.run_id, points, written)
        except TrackingError as error:
            _log.warning("the verdict on %s is not written on its run: %s", agent.name, error)
    return rulings


def _write(sink: MlflowSink, run_id: str, points: Sequence[MetricPoint], tags: Mapping[str, str]) -> None:
    """Writes a verdict; what an earlier one says of rules that are none now no longer counts."""
    if names.TAG_RULES in tags:
        earlier = {key for key in sink.read_tags(run_id) if key.startswith(f"{names.TAG_RULE}.")} - tags.keys()
        tags = {**dict.fromkeys(earlier, _NO_RULE), **tags}
    sink.log(run_id, metrics=points, tags=tags)


def last_evaluation(runs: RunSet, run_id: str) -> tuple[tuple[EpisodeRecord, ...], int]:
    """Returns the episodes of a run's last evaluation and its step; no episodes where the run kept none."""
    try:
        bars = runs.series(run_id)
    except DataError:
        return (), 0
    step = int(bars["step"].max())
    return tuple(_records(bars[bars["step"] == step])), step


def _records(bars: pd.DataFrame) -> Iterable[EpisodeRecord]:
    for trace in traces(bars[bars["iteration"] == bars["iteration"].max()]):
        record = trace.record()
        yield replace(record, timestamp=trace.x) if trace.dated else record
