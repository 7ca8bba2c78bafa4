"""One run of your own: what a training loop, a script or a notebook says of it, written down as it is said."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal

from drl_ray_tracking import names
from drl_ray_tracking.episodes import EpisodeRecord
from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.fingerprint import config_hash, jsonable
from drl_ray_tracking.tracking import events
from drl_ray_tracking.tracking.earlier_runs import EarlierRun
from drl_ray_tracking.tracking.episode_pools import episode_event
from drl_ray_tracking.tracking.kept import checked_folder, keep, new_place
from drl_ray_tracking.tracking.session import Session
from drl_ray_tracking.trials.metrics import NON_FINITE
from drl_ray_tracking.trials.redaction import redact

if TYPE_CHECKING:
    from drl_ray_tracking.tracking.experiment import ExperimentService

_log = logging.getLogger(__name__)
Split = Literal["train", "eval"]
_NOTES_LIMIT: Final = 7_500  # characters; a longer tag would be cut at its newest end


class TrackedRun:
    """One run of your own, from `ExperimentService.start_run`. Leaving the `with` block flushes it and sets its status.

    An exception makes it FAILED, with its traceback; KeyboardInterrupt and SystemExit make it KILLED.

    Attributes:
        id: its own id, known at once and in every process; also the tag `drl.trial_id`.
        name: what MLflow shows.
        resumed_step: the last step a resumed run has values at (or `at_step`); 0 for a new one.
    """

    def __init__(
        self, service: ExperimentService, session: Session, trial: str, introduced: events.Trial, steps_per_point: int
    ) -> None:
        self._service = service
        self._session = session
        self.id = trial
        self.name = introduced["name"]
        self.resumed_step = introduced["resumed_step"]
        self._params = dict(introduced["params"])
        self._notes = introduced["tags"].get(names.TAG_NOTE, "")
        self._steps_per_point = steps_per_point
        self._seen = self.resumed_step
        self._trained = self.resumed_step  # env steps of the training episodes, counted apart
        self._ended = False

    @property
    def last_step(self) -> int:
        """The highest step anything was logged at."""
        return self._seen

    @property
    def run_id(self) -> str | None:
        """The run's id in the store; None until it has arrived there."""
        return self._session.run_ids().get(self.id)

    @property
    def parent_run_id(self) -> str | None:
        """The id of the session's parent run; None until it has arrived."""
        return self._session.run_ids().get("")

    def start_run(
        self,
        name: str | None = None,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None,
    ) -> TrackedRun:
        """Starts a run nested below this one."""
        return self._service.start_run(name, params, tags, parent=self)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Logs values at a step (env steps make runs comparable); what is not finite is left out and counted."""
        finite = {names.legal_metric_name(key): names.finite(value) for key, value in metrics.items()}
        chosen = {key: value for key, value in finite.items() if value is not None}
        if len(chosen) < len(finite):
            chosen[NON_FINITE] = float(len(finite) - len(chosen))
        self._seen = max(self._seen, int(step))
        self._append(events.RESULT, events.Result(step=int(step), metrics=chosen))

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Logs parameters.

        Raises:
            ConfigurationError: one has another value already: a parameter of a run cannot change.
        """
        plain = plain_params(params, self._session.wishes.secrets)
        changed = {key: value for key, value in plain.items() if self._params.get(key, value) != value}
        if changed:
            listed = ", ".join(f"{key} is {self._params[key]!r}, not {value!r}" for key, value in changed.items())
            raise ConfigurationError(
                f"parameters of run {self.name} cannot change: {listed}. What changes while a run goes on is a metric"
            )
        self._params.update(plain)
        tags = identity_tags(self._params)
        self._append(events.RESULT, events.Result(step=self._seen, metrics={}, params=plain, tags=tags))

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Sets tags; setting one again replaces it."""
        self._tag(redact(texts(tags), self._session.wishes.secrets))

    def note(self, text: str) -> None:
        """Adds a note, with the time, to the run's description in MLflow (Markdown); the oldest give way."""
        stamp = time.strftime("%Y-%m-%d %H:%M")
        said = f"{self._notes}\n\n**{stamp}** {redact(text, self._session.wishes.secrets)}".strip()
        self._notes = said[-_NOTES_LIMIT:]
        self._tag({names.TAG_NOTE: self._notes})

    def log_episode(self, record: EpisodeRecord, *, step: int | None = None, split: Split = "train") -> None:
        """Adds a finished episode to the exact KPIs of its split, under the names that RLlib's trials have.

        The episode is safe at once. Episodes of one step are measured together, and so are training episodes without
        a step over `steps_per_point` env steps; their KPIs appear when others begin, and when the run ends.

        Args:
            record: what `RecordEpisodes(on_episode=...)` gives.
            step: env steps so far; None adds up the lengths of training episodes.
            split: `train/...` or `eval/...`.

        Raises:
            ConfigurationError: another split.
        """
        if split not in ("train", "eval"):
            raise ConfigurationError(f"split={split!r} must be 'train' or 'eval'")
        before = self._trained
        if split == "train":
            self._trained = int(step) if step is not None else before + record.length
        at = int(step) if step is not None else self._trained if split == "train" else self._seen
        self._seen = max(self._seen, at)
        together = step is None and split == "train"
        pool = f"from {before // self._steps_per_point}" if together else f"at {at}"
        self._append(events.EPISODE, episode_event(record, split=split, step=at, pool=pool))

    def log_artifact(self, path: str | Path, folder: str = "") -> None:
        """Keeps a file, or everything in a directory, as it is now, and uploads it.

        Raises:
            ConfigurationError: there is no such file, or `folder` leads out of the run's artifacts.
        """
        self._check_open()
        self._append(events.FILES, keep(self._session.spool.directory, path, folder))

    def log_figure(self, figure: Any, file: str) -> None:
        """Logs a matplotlib figure (`savefig`) or a plotly one (`write_html`) under a file name such as `equity.png`.

        Raises:
            ConfigurationError: it is neither, or `file` leads out of the run's artifacts.
        """
        if not (hasattr(figure, "savefig") or hasattr(figure, "write_html")):
            raise ConfigurationError(f"a {type(figure).__name__} is no figure of matplotlib or plotly")
        place, folder, leaf = self._place(file)
        if hasattr(figure, "savefig"):
            figure.savefig(place / leaf)
        else:
            figure.write_html(place / leaf)
        self._append(events.FILES, events.Files(folder=folder, path=str(place)))

    def log_text(self, text: str, file: str) -> None:
        """Logs a text as a file."""
        place, folder, leaf = self._place(file)
        (place / leaf).write_text(str(redact(text, self._session.wishes.secrets)), encoding="utf-8")
        self._append(events.FILES, events.Files(folder=folder, path=str(place)))

    def log_checkpoint(self, path: str | Path, step: int, *, score: float | None = None) -> None:
        """Makes a checkpoint's directory known as a model that points at it; it has to stay where it is.

        Args:
            path: the directory.
            step: env steps.
            score: by which the best are uploaded; higher is better. One that is not finite is none.

        Raises:
            ConfigurationError: it is no directory.
        """
        folder = Path(path).resolve()
        if not folder.is_dir():
            raise ConfigurationError(f"{folder} is no directory: a checkpoint is one")
        payload = events.Checkpoint(name=self.name, uri=str(folder), step=int(step), iteration=0, metrics={})
        finite = names.finite(score)
        if finite is not None:
            payload["score"] = finite
        self._append(events.CHECKPOINT, payload)

    def end(self, status: str = "FINISHED", error: BaseException | None = None) -> None:
        """Ends the run and waits for delivery within bounds; ending it twice does nothing."""
        if self._ended or not self._session.is_mine:
            return
        reason = {"FINISHED": names.END_COMPLETED, "FAILED": names.END_ERROR}.get(status, names.END_INTERRUPTED)
        payload = events.TrialEnd(status=status, tags={names.TAG_END_REASON: reason}, folders={})
        if error is not None:
            text = str(redact("".join(traceback.format_exception(error)), self._session.wishes.secrets))
            payload["traceback"] = text
            payload["tags"][names.TAG_ERROR] = text.strip().splitlines()[-1][:500]
        seq = self._append(events.TRIAL_END, payload)
        self._ended = True
        if not self._session.wait(seq):
            _log.warning("run %s is not in the store yet; it waits in %s", self.name, self._session.spool.directory)

    def as_parent(self) -> EarlierRun:
        """Returns what a run nested below this one needs to know of it."""
        return EarlierRun(self.id, self._session.sweep_id, self._session.name, self.name)

    def __enter__(self) -> TrackedRun:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        status = ending(kind)
        self.end(status, error if status == "FAILED" else None)

    def _tag(self, tags: dict[str, str]) -> None:
        self._append(events.RESULT, events.Result(step=self._seen, metrics={}, tags=tags))

    def _place(self, file: str) -> tuple[Path, str, str]:
        """Returns a new place for a file on its way, its artifact folder and its name."""
        self._check_open()
        folder, _, leaf = file.rpartition("/")
        if not leaf:
            raise ConfigurationError(f"{file!r} names no file: give one such as equity.png")
        return new_place(self._session.spool.directory, checked_folder(folder)), folder, leaf

    def _check_open(self) -> None:
        if self._ended:
            raise ConfigurationError(f"run {self.name} has ended; start_run(resume={self.name!r}) goes on with it")

    def _append(self, kind: str, payload: Any) -> int:
        self._check_open()
        return self._session.append(kind, self.id, payload)


def ending(kind: type[BaseException] | None) -> str:
    """Returns the status of what ends with an exception, or without one."""
    if kind is None:
        return "FINISHED"
    return "FAILED" if issubclass(kind, Exception) else "KILLED"


def texts(tags: Mapping[str, Any]) -> dict[str, str]:
    """Returns tags as MLflow takes them."""
    return {names.legal_metric_name(str(key)): str(value) for key, value in tags.items()}


def plain_params(params: Mapping[str, Any], secrets: Sequence[str]) -> dict[str, str]:
    """Returns parameters as texts that are the same in every process, without secrets."""
    return {str(key): str(value) for key, value in redact(jsonable(dict(params)), secrets).items()}


def identity_tags(params: Mapping[str, str]) -> dict[str, str]:
    """Returns what groups runs of equal parameters and tells seeds apart; nothing where there are no parameters."""
    seed = {names.TAG_SEED: params["seed"]} if "seed" in params else {}
    return {names.TAG_CONFIG_HASH: config_hash(params), **seed} if params else {}
