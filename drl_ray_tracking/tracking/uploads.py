"""Files on their way to a store: texts, folders, checkpoints and pictures, one at a time, apart from metrics.

A broken artifact store, a checkpoint that Tune deletes or a file that cannot be read delays no metric: what cannot
be sent now goes to the end of the queue, what never can is left out, and its run says so.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from drl_ray_tracking import names
from drl_ray_tracking.tracking import events
from drl_ray_tracking.tracking.checkpoints import Checkpoints
from drl_ray_tracking.tracking.journal import Event
from drl_ray_tracking.tracking.own_files import OwnFiles
from drl_ray_tracking.tracking.painter import Painter
from drl_ray_tracking.tracking.progress import Progress
from drl_ray_tracking.tracking.runs import Runs
from drl_ray_tracking.tracking.sealing import Sealing
from drl_ray_tracking.tracking.sink import MetricPoint, Sink, SinkRefusedError, SinkUnavailableError
from drl_ray_tracking.tracking.storage import below
from drl_ray_tracking.tracking.trial_files import LeftOutError, legal_tree

_log = logging.getLogger(__name__)
_POINTS_OF_A_PICTURE: Final = 100_000
_LOOKED_AT_ONCE: Final = 20  # running trials whose files are looked for at one time
Fetch = Callable[[str, str, Path], Path | None]  # (artifact folder, source, scratch) -> local folder
Read = Callable[[int], Event | None]


class Uploads:
    """The queue of what has files; it lives in `progress`."""

    def __init__(
        self, sink: Sink, progress: Progress, runs: Runs, fetch: Fetch, painter: Painter | None, sealing: Sealing
    ) -> None:
        """Takes the store, the queue, the sweep's runs, what brings files to this machine, who draws and who seals."""
        self._sink = sink
        self._progress = progress
        self._runs = runs
        self._fetch = fetch
        self._painter = painter
        self._sealing = sealing
        self._sitting = ""  # the trial that is being drawn
        self._own = OwnFiles()
        self._looked_at = 0  # how many looks at running trials' files there were
        self._checkpoints = Checkpoints(sink.models, partial(fetch, names.CHECKPOINT_FOLDER))

    def later(self, event: Event) -> None:
        """Puts an event with files at the end of the queue."""
        if event.seq not in self._progress.uploads:
            self._progress.uploads.append(event.seq)

    def adopt(self, trial: str) -> None:
        """Takes care of the files of a trial whose driver has died before it could announce them."""
        if trial not in self._progress.orphans:
            self._progress.orphans.append(trial)

    def look(self) -> None:
        """Sends what a few of the running trials have attached to their runs; the others have their turn later.

        What cannot be had or sent now is found again at the next look, or when the trial has ended.
        """
        storages = list(self._progress.storages.items())
        first = self._looked_at % len(storages) if storages else 0
        for trial, storage in (storages[first:] + storages[:first])[:_LOOKED_AT_ONCE]:
            self._looked_at += 1
            try:
                self._own_files(trial, below(storage, names.FILES_DIR))
            except SinkRefusedError:
                raise
            except Exception as error:  # noqa: BLE001 - a storage of any kind; the trial's end says what is left out
                _log.info("files of trial %s wait for the next look: %s", trial, error)

    def next(self, read: Read, *, may_draw: bool = True) -> bool:
        """Uploads what has waited longest: files of events, then chosen checkpoints, then pictures.

        Args:
            read: reads an event of the journal.
            may_draw: whether it is time to begin another drawing.

        Returns:
            Whether anything was done: False where pictures are still being drawn, or have to wait.

        Raises:
            SinkUnavailableError: the files cannot be had or sent now; they go to the end of the queue.
            SinkRefusedError: the experiment is refused; what was tried stays where it is.
        """
        if self._progress.uploads:
            self._event(self._progress.uploads[0], read)
        elif self._progress.orphans:
            self._orphan(self._progress.orphans[0])
        elif self._progress.checkpoints.waiting:
            self._chosen_checkpoint()
        elif self._progress.drawing:
            trial = self._progress.drawing[0]
            return (may_draw or self._sitting == trial) and self._pictures(trial)
        return True

    def _event(self, seq: int, read: Read) -> None:
        queue = self._progress.uploads

        def upload() -> None:
            event = read(seq)
            if event is not None:
                self._upload(event)

        self._attempt(upload, queue, f"files of event {seq}")
        queue.remove(seq)
        self._progress.result_times.pop(str(seq), None)

    def _orphan(self, trial: str) -> None:
        def upload() -> None:
            run_id = self._runs.takes(trial)
            storage = self._sink.read_tags(run_id).get(names.TAG_STORAGE) if run_id is not None else None
            if storage is not None:
                self._folder(trial, names.SERIES_ARTIFACT, below(storage, names.SERIES_DIR))
                self._own_files(trial, below(storage, names.FILES_DIR))
                self._folder(trial, names.TENSORBOARD_ARTIFACT, storage)  # as far as Tune had come with it
                self._draw_later(trial)

        self._attempt(upload, self._progress.orphans, f"files of trial {trial}")
        self._progress.orphans.remove(trial)

    def _attempt(self, upload: Callable[[], None], queue: list[Any], what: str) -> None:
        """Tries the first of a queue; it goes to the end where it cannot be had or sent now."""
        try:
            upload()
        except (SinkUnavailableError, OSError) as error:
            queue.append(queue.pop(0))
            raise SinkUnavailableError(f"{what}: {error}") from error
        except SinkRefusedError:
            raise
        except Exception as error:  # noqa: BLE001 - a broken file must not hold up the others
            _log.exception("%s cannot be uploaded: left out", what)
            self._runs.left_out(f"{what} cannot be uploaded: {type(error).__name__}: {error}")

    def _upload(self, event: Event) -> None:
        payload: Any = event.payload
        trial = event.trial
        if event.kind == events.SWEEP:
            for file, text in _texts(payload).items():
                self._text(trial, text, file)
        elif event.kind == events.TRIAL:
            text = json.dumps(payload["config"], indent=1, sort_keys=True)
            self._text(trial, text, names.CONFIG_ARTIFACT)
        elif event.kind == events.CHECKPOINT:
            self._point_at(event, payload)
        elif event.kind == events.FILES:
            self._files(trial, payload)
        elif event.kind == events.TRIAL_END:
            if "traceback" in payload:
                self._text(trial, payload["traceback"], names.ERROR_ARTIFACT)
            for folder, source in payload["folders"].items():
                if folder:
                    self._folder(trial, folder, source)
                else:
                    self._own_files(trial, source)
            self._own.forget(trial)
            self._sealing.seal(trial)
            self._draw_later(trial)
        elif event.kind == events.SWEEP_END:
            self._sealing.bundle()

    def _files(self, trial: str, payload: events.Files) -> None:
        place = Path(payload["path"])
        if payload.get("stays"):
            self._folder(trial, payload["folder"], payload["path"])
        elif place.is_dir():  # as it is, whatever its folder is called
            with tempfile.TemporaryDirectory(prefix="drl-track-") as scratch:
                self._send(trial, payload["folder"], payload["path"], place, Path(scratch))
            shutil.rmtree(place, ignore_errors=True)

    def _text(self, trial: str, text: str, file: str) -> None:
        self._runs.guarded(trial, lambda run_id: self._sink.log_text(run_id, text, file))

    def _folder(self, trial: str, folder: str, source: str) -> None:
        with tempfile.TemporaryDirectory(prefix="drl-track-") as scratch:
            try:
                local = self._fetch(folder, source, Path(scratch))
                if local is not None:
                    self._send(trial, folder, source, local, Path(scratch))
            except LeftOutError as error:
                self._say_left_out(trial, folder, source, error)

    def _own_files(self, trial: str, source: str) -> None:
        """Sends what a trial has attached to its run and has not been sent yet."""
        with tempfile.TemporaryDirectory(prefix="drl-track-") as scratch:
            found = self._own.fetch(trial, source, Path(scratch))
            if found is not None:
                self._send(trial, "", source, found[0], Path(scratch))
                self._own.sent(trial, found[1])

    def _send(self, trial: str, folder: str, source: str, local: Path, scratch: Path) -> None:
        run_id = self._runs.takes(trial)
        if run_id is None:
            return
        try:
            self._sink.log_folder(run_id, legal_tree(local, scratch), names.legal_artifact_path(folder))
        except SinkRefusedError as error:
            # Not a reason to give the run up: only these files are too much for the store.
            self._say_left_out(trial, folder, source, error)

    def _say_left_out(self, trial: str, folder: str, source: str, error: Exception) -> None:
        _log.error("%s is not uploaded: %s", source, error)
        tags = {f"{names.TAG_LEFT_OUT}.{names.legal_metric_name(folder or 'files')}": str(error)}
        self._runs.guarded(trial, lambda run_id: self._sink.log(run_id, tags=tags))

    # --- pictures ------------------------------------------------------------------------------------

    def _draw_later(self, trial: str) -> None:
        if self._progress.pictures and self._painter is not None and trial not in self._progress.drawing:
            self._progress.drawing.append(trial)

    def _pictures(self, trial: str) -> bool:
        """Starts drawing a trial's pictures, or uploads them once they are drawn."""
        run_id = self._runs.takes(trial)
        moved = True

        def go_on() -> None:
            nonlocal moved
            if run_id is None or self._painter is None:
                self._sitting = trial
            elif self._sitting != trial:
                self._lay_out(run_id, self._painter.place())
                self._painter.start()
                self._sitting = trial
                moved = False
            elif (pictures := self._painter.drawn()) is None:
                moved = False
            elif any(pictures.iterdir()):
                self._sink.log_folder(run_id, pictures, "")

        try:
            self._attempt(go_on, self._progress.drawing, f"pictures of trial {trial}")
        except SinkUnavailableError:
            self._sitting = ""
            raise
        except SinkRefusedError as error:
            _log.error("the pictures of trial %s are not uploaded: %s", trial, error)
        if moved:
            self._sitting = ""
            self._progress.drawing.remove(trial)
            self._progress.drawn += 1
        return moved

    def _lay_out(self, run_id: str, place: Path) -> None:
        """Puts everything there is to draw into a folder."""
        tags = self._sink.read_tags(run_id)
        points = self._sink.histories(run_id, self._curves(tags), at_most=_POINTS_OF_A_PICTURE)
        if not points:  # not RLlib's: whatever it reports
            points = self._sink.histories(run_id, ["[!pst]*", "[pst]*"], at_most=_POINTS_OF_A_PICTURE)
        material = {"tags": dict(tags), "points": points}
        (place / names.MATERIAL_FILE).write_text(json.dumps(material), encoding="utf-8")
        if names.TAG_STORAGE in tags:
            source = below(tags[names.TAG_STORAGE], names.SERIES_DIR)
            with tempfile.TemporaryDirectory(prefix="drl-track-") as scratch:
                series = self._fetch(names.SERIES_ARTIFACT, source, Path(scratch))
                if series is not None:
                    shutil.copytree(series, place, dirs_exist_ok=True)

    @staticmethod
    def _curves(tags: Any) -> list[str]:
        objective = tags.get(names.TAG_OBJECTIVE)
        return [*names.LEARNING_CURVES[:2], *([objective] if objective else []), *names.LEARNING_CURVES[2:]]

    # --- checkpoints ---------------------------------------------------------------------------------

    def _point_at(self, event: Event, payload: events.Checkpoint) -> None:
        """Makes a checkpoint's pointer, with the values at its step, then says what its files are."""
        run_id, experiment_id = self._runs.takes(event.trial), self._progress.experiment_id
        if run_id is None or experiment_id is None:
            return
        try:
            model_id = self._checkpoints.point(experiment_id, run_id, payload)
            time_ms = self._progress.result_times.get(str(event.seq))
            if time_ms is not None:
                step = payload["step"]
                points = [MetricPoint(key, value, time_ms, step, model_id) for key, value in payload["metrics"].items()]
                self._sink.log(run_id, metrics=points)
            self._checkpoints.describe(model_id, payload)
        except SinkRefusedError as error:  # a store without models, or a deleted run: the run says so itself
            _log.error("the checkpoint %s has no pointer: %s", payload["uri"], error)

    def _chosen_checkpoint(self) -> None:
        waiting = self._progress.checkpoints.waiting
        trial, saved = waiting[0]
        run_id, experiment_id = self._progress.runs.get(trial), self._progress.experiment_id
        try:
            if run_id is not None and experiment_id is not None:
                self._checkpoints.upload(experiment_id, run_id, saved, self._progress.checkpoints.keep)
        except SinkRefusedError as error:
            _log.error("the checkpoint %s is not uploaded: %s", saved["uri"], error)
        except (SinkUnavailableError, OSError) as error:
            waiting.append(waiting.pop(0))
            raise SinkUnavailableError(f"checkpoint {saved['uri']}: {error}") from error
        except Exception as error:  # noqa: BLE001 - a broken file must not hold up the others
            _log.exception("the checkpoint %s cannot be uploaded: left out", saved["uri"])
            self._runs.left_out(f"the checkpoint {saved['uri']} cannot be uploaded: {type(error).__name__}: {error}")
        waiting.remove((trial, saved))


def _texts(payload: events.Sweep) -> dict[str, str]:
    """Returns the text artifacts of a sweep by their file."""
    texts = dict(payload.get("texts", {}))
    if payload.get("diff"):
        texts[names.DIFF_ARTIFACT] = payload["diff"]
    return texts
