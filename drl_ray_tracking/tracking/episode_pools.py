"""Episodes of manual runs on their way to KPIs: one journal event each, pooled by the courier.

The loop that logs an episode writes its summary down at once, so a killed process loses none. Which episodes belong
together is the loop's to say (`pool`); their exact KPIs are points at the step and time of the last of them, once
another pool begins or the run is over. They carry the names, and pass the selection, of an RLlib trial's.
"""

from __future__ import annotations

import base64
import logging
import pickle
from collections.abc import Callable, Iterable
from typing import Any

from drl_ray_tracking import names
from drl_ray_tracking.episodes import EpisodeRecord, EpisodeSummary
from drl_ray_tracking.episodes.summary import merge_all
from drl_ray_tracking.tracking import events
from drl_ray_tracking.tracking.journal import Event
from drl_ray_tracking.tracking.progress import Progress
from drl_ray_tracking.tracking.sink import MetricPoint
from drl_ray_tracking.trials.metrics import MetricSelection

_log = logging.getLogger(__name__)
RecallEpisodes = Callable[[str, int, int], Iterable[Event]]  # (trial, first, last) -> its episodes, in order


def episode_event(record: EpisodeRecord, *, split: str, step: int, pool: str) -> events.Episode:
    """Returns what the journal says of an episode."""
    summary = base64.b64encode(pickle.dumps(EpisodeSummary.of(record), protocol=pickle.HIGHEST_PROTOCOL))
    return events.Episode(split=split, step=step, pool=pool, summary=summary.decode())


def kpis_of(records: Iterable[EpisodeRecord], *, split: str, step: int) -> dict[str, float]:
    """Returns the KPIs of episodes under the names they are published by; nothing for no episodes."""
    summaries = [EpisodeSummary.of(record) for record in records]
    if not summaries:
        return {}
    return MetricSelection().select(_as_result(merge_all(summaries).compute(), split, step))


def pooled_points(episodes: Iterable[Event], split: str) -> list[MetricPoint]:
    """Returns the KPIs of the episodes of one split as points; none where there are no episodes."""
    chosen = [event for event in episodes if event.payload["split"] == split]
    if not chosen:
        return []
    summaries = [pickle.loads(base64.b64decode(event.payload["summary"])) for event in chosen]
    step = int(chosen[-1].payload["step"])
    values = MetricSelection().select(_as_result(merge_all(summaries).compute(), split, step))
    return [MetricPoint(key, value, chosen[-1].time_ms, step) for key, value in values.items()]


def _as_result(kpis: dict[str, float], split: str, step: int) -> dict[str, Any]:
    """Returns KPIs in the places where an RLlib result has them."""
    nested: dict[str, Any] = {}
    for path, value in kpis.items():
        names.nest(nested, path, value)
    result: dict[str, Any] = {names.LIFETIME_STEPS: step, names.ENV_RUNNERS: nested}
    if split == "eval":
        evaluation = {names.ENV_RUNNERS: nested, names.WEIGHTS_STEP: step}
        result = {names.LIFETIME_STEPS: step, names.ENV_RUNNERS: {}, names.EVALUATION: evaluation}
    return result


class EpisodePools:
    """The pools that are being filled, one a run and split; they live in `progress`. What is said twice counts once."""

    def __init__(
        self,
        progress: Progress,
        recall: RecallEpisodes,
        send: Callable[[str, list[MetricPoint]], None],
        left_out: Callable[[str, int], None],
    ) -> None:
        """Takes where the pools live, what reads episodes from the journal again, and who sends their points.

        `left_out` is told why so many episodes are in no point.
        """
        self._progress = progress
        self._recall = recall
        self._send = send
        self._left_out = left_out

    def add(self, event: Event, payload: events.Episode) -> None:
        """Takes an episode up; one of another pool completes the pool before.

        Raises:
            SinkUnavailableError: that pool's points cannot be sent now; the episode is to be added again.
        """
        trial, split = event.trial, payload["split"]
        if event.seq <= self._progress.pooled.get(trial, 0):
            return
        pools = self._progress.pools.setdefault(trial, {})
        if split in pools and pools[split][0] != payload["pool"]:
            self._complete(trial, split)
        _, first, _ = pools.get(split, ("", event.seq, 0))
        pools[split] = [payload["pool"], first, event.seq]
        self._progress.pooled[trial] = event.seq

    def close(self, trial: str) -> None:
        """Completes every pool of a run that is over."""
        for split in list(self._progress.pools.get(trial, {})):
            self._complete(trial, split)
        self._progress.pools.pop(trial, None)

    def _complete(self, trial: str, split: str) -> None:
        _, first, last = self._progress.pools[trial][split]
        episodes = [event for event in self._recall(trial, first, last) if event.payload.get("split") == split]
        try:
            points = pooled_points(episodes, split)
        except Exception as error:  # noqa: BLE001 - a pool of another version must not hold up how its run ends
            _log.exception("%d episodes of %s (%s) cannot be read: left out", len(episodes), trial, split)
            why = f"episodes of {trial} ({split}) cannot be read: {type(error).__name__}: {error}"
            self._left_out(why, len(episodes))
            points = []
        if points:
            self._send(trial, points)
        del self._progress.pools[trial][split]
