"""What a training that knows nothing of tracking is given, so that its agents are tracked while they train.

Two things any training takes already: a callback in the shape Stable-Baselines3 takes (a function of `locals()` and
`globals()`), and a wrapper for gymnasium environments. Each agent that trains becomes a run. Nothing here raises into
the training.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from drl_ray_tracking import names
from drl_ray_tracking.capture.recorder import RecordEpisodes
from drl_ray_tracking.episodes import EpisodeRecord
from drl_ray_tracking.tracking.tracked_run import TrackedRun

_log = logging.getLogger(__name__)
_TRAINING_VALUES: Final = "train/"  # of SB3's logger; here `train/` means training episodes
_LEARNER: Final = "learner/default/"


@dataclass
class LiveRun:
    """An agent that trains, or has trained, and its run.

    Attributes:
        run: where it is tracked.
        model: what the callback was told trains; None where only environments are wrapped.
        is_wrapped: whether its training episodes come from a wrapped environment.
        evaluated: how many of its validation episodes are in the run.
        learned: what the learner last said.
    """

    run: TrackedRun
    model: Any = None
    is_wrapped: bool = False
    evaluated: int = 0
    learned: Mapping[str, float] = field(default_factory=dict)


class LiveRuns:
    """Tracks agents while somebody else trains them; hand `callback` or `wrap`, or both, to the training.

        live = LiveRuns()
        service = ExperimentTrainingService(MyService(callback=live.callback, wrap=live.wrap), live=live, ...)

    With the callback a new model is a new agent. With the wrapper alone, each wrapped environment whose episodes
    carry no other `split` than "train" is one: an agent that trains in several environments needs the callback.
    Episodes of the split "validation" are evaluations of the agent that trains; those of "test" are left out.
    """

    def __init__(self) -> None:
        self._start: Callable[[str], TrackedRun] | None = None
        self._runs: list[LiveRun] = []
        self._failed = False

    def attach(self, start: Callable[[str], TrackedRun]) -> None:
        """Begins to track: `start` starts a run by its name."""
        self._start, self._runs = start, []

    def detach(self) -> list[LiveRun]:
        """Ends tracking and returns the agents, in the order they began to train."""
        self._start = None
        return self._runs

    def callback(self, local: Mapping[str, Any], global_: Mapping[str, Any] | None = None) -> bool:
        """Takes one step of a training, as `model.learn(callback=...)` of Stable-Baselines3 calls it; returns True.

        Args:
            local: `self` is the model (`num_timesteps`, `logger.name_to_value`), `infos` those of this step, with
                `episode` (`r` and `l`, as `Monitor` leaves them) where one has ended.
            global_: not used.
        """
        self._contain(lambda: self._step(local))
        return True

    def wrap(self, env: Any, **keywords: Any) -> RecordEpisodes:
        """Wraps an environment so that its episodes are recorded; `keywords` are those of `RecordEpisodes`."""
        feed = _Feed(self)
        return RecordEpisodes(env, on_episode=feed.take, **keywords)

    def _step(self, local: Mapping[str, Any]) -> None:
        model = local.get("self")
        live = self._of_model(model)
        if live is None:
            return
        if not live.is_wrapped:
            for info in local.get("infos") or ():
                ended = info.get("episode")
                if ended is not None:
                    live.run.log_episode(EpisodeRecord(float(ended["r"]), int(ended["l"])))
        values = dict(getattr(getattr(model, "logger", None), "name_to_value", None) or {})
        learned = {
            f"{_LEARNER}{key.removeprefix(_TRAINING_VALUES)}": value
            for key, value in values.items()
            if key.startswith(_TRAINING_VALUES) and names.finite(value) is not None
        }
        if learned and learned != live.learned:  # SB3 keeps the values until its next rollout is over
            live.run.log_metrics(learned, step=int(getattr(model, "num_timesteps", 0)))
            live.learned = learned

    def _of_model(self, model: Any) -> LiveRun | None:
        current = self._runs[-1] if self._runs else None
        if current is None or (current.model is not None and current.model is not model):
            current = self._begin(type(model).__name__)
        if current is not None:
            current.model = model
        return current

    def _begin(self, kind: str) -> LiveRun | None:
        if self._start is None:
            return None
        self._runs.append(LiveRun(self._start(f"{kind.lower()}-{len(self._runs) + 1}")))
        return self._runs[-1]

    def _episode(self, feed: _Feed, record: EpisodeRecord) -> None:
        split = record.labels.get("split", "train")
        if self._start is None or split == "test":
            return
        live = self._runs[-1] if self._runs else None
        if split == "train":
            live = self._trained_in(feed, live)
            if live is not None:
                live.is_wrapped = True
                live.run.log_episode(record)
        elif live is not None:
            live.evaluated += 1
            live.run.log_episode(record, split="eval")

    def _trained_in(self, feed: _Feed, live: LiveRun | None) -> LiveRun | None:
        """Returns the agent an environment's training episode is of."""
        if live is None or (live.model is None and feed.live is not live):
            live = self._begin("agent") if feed.live is None else feed.live
        feed.live = live
        return live

    def _contain(self, part: Callable[[], None]) -> None:
        try:
            part()
        except Exception:  # noqa: BLE001 - a tracking failure must not end somebody's training
            if not self._failed:
                _log.exception("tracking of a training failed, the training goes on; further failures are not said")
            self._failed = True


class _Feed:
    """One wrapped environment: the agent its training episodes are of."""

    def __init__(self, runs: LiveRuns) -> None:
        self._runs = runs
        self.live: LiveRun | None = None

    def take(self, record: EpisodeRecord) -> None:
        self._runs._contain(lambda: self._runs._episode(self, record))
