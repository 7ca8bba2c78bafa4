"""Checkpoints on their way to a store: a pointer for each, and those wanted uploaded as loadable models.

A pointer is a model without files: where Tune keeps the checkpoint, its step, the values at that step, its
digest. An upload is a second model that names the pointer it was made of; it is not ready until every file of it
has arrived. Tune may delete a checkpoint before it is read: that is said on the pointer, and no error.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

from drl_ray_tracking import names
from drl_ray_tracking.tracking import events
from drl_ray_tracking.tracking.model_store import FoundModel, ModelSpec, ModelStore

_log = logging.getLogger(__name__)
FetchCheckpoint = Callable[[str, Path], Path | None]  # (source, scratch) -> local folder
_PACKAGER: Final = "drl_ray_tracking.models.package"  # run by its name: it loads torch, and may fail
_PACKAGER_LIMIT_S: Final = 300.0
_BLOCK: Final = 1 << 20
_GONE: Final = "deleted by Tune before it could be read"


@dataclass
class CheckpointProgress:
    """Which checkpoints are to be uploaded: chosen so far, and waiting; plain JSON, as it survives the courier."""

    upload: str = "none"
    keep: int | None = None
    candidates: dict[str, list[events.Saved]] = field(default_factory=dict)  # trial -> chosen should it end now
    waiting: list[tuple[str, events.Saved]] = field(default_factory=list)  # (trial, checkpoint), the oldest first
    settled: list[str] = field(default_factory=list)  # trials that have ended: Tune may save once more after that

    @classmethod
    def from_json(cls, state: dict[str, Any]) -> CheckpointProgress:
        """Restores what `vars` gave, through JSON; unknown keys are ignored."""
        known = {key: value for key, value in state.items() if key in cls.__dataclass_fields__}
        known["waiting"] = [(trial, saved) for trial, saved in known.get("waiting", [])]
        return cls(**known)

    def policy(self, policy: events.CheckpointPolicy | None) -> None:
        """Takes what the sweep wants."""
        if policy is not None:
            self.upload, self.keep = policy["upload"], policy["keep"]

    def note(self, trial: str, payload: events.Checkpoint) -> None:
        """Takes a new checkpoint into account."""
        saved = cast(events.Saved, {key: value for key, value in payload.items() if key != "metrics"})
        if self.upload == "all":
            self._enqueue(trial, saved)
        elif self.upload != "none":
            others = [other for other in self.candidates.get(trial, []) if other["uri"] != saved["uri"]]
            ranked = sorted([*others, saved], key=self._rank)
            self.candidates[trial] = ranked[-(self.keep or 1) :]
            if trial in self.settled:
                self.settle(trial)

    def settle(self, trial: str) -> None:
        """Lets an ended trial's candidates wait for their upload, and no other checkpoint of it any more."""
        if self.upload in ("best", "last"):
            chosen = self.candidates.get(trial, [])
            self.waiting = [(owner, saved) for owner, saved in self.waiting if owner != trial or saved in chosen]
            for saved in chosen:
                self._enqueue(trial, saved)
            if trial not in self.settled:
                self.settled.append(trial)

    def reopen(self, trial: str) -> None:
        """Takes note that a trial goes on."""
        if trial in self.settled:
            self.settled.remove(trial)

    def _rank(self, saved: events.Saved) -> tuple[float, int]:
        score = saved.get("score", -math.inf) if self.upload == "best" else 0.0
        return score, saved["step"]

    def _enqueue(self, trial: str, saved: events.Saved) -> None:
        if (trial, saved) not in self.waiting:
            self.waiting.append((trial, saved))


class Checkpoints:
    """Makes pointers and uploads of one sweep's checkpoints in a store of models; every call is repeatable."""

    def __init__(self, store: ModelStore, fetch: FetchCheckpoint) -> None:
        self._store = store
        self._fetch = fetch

    def point(self, experiment_id: str, run_id: str, saved: events.Saved) -> str:
        """Finds a checkpoint's pointer or makes it; returns its id."""
        identity = {names.TAG_CHECKPOINT: _identity(run_id, saved), names.TAG_MODEL_ROLE: names.MODEL_POINTER}
        found = self._store.find(experiment_id, identity)
        model_id = found[0].model_id if found else None
        if model_id is None:
            model_id = self._store.create(experiment_id, _spec(saved, identity, _tags(run_id, saved), run_id))
        if not found or not found[0].ready:
            self._store.finish(model_id)
        return model_id

    def describe(self, pointer: str, saved: events.Saved) -> None:
        """Says on a pointer what its files are: their digest, or that they are gone."""
        with tempfile.TemporaryDirectory(prefix="drl-track-") as scratch:
            try:
                folder = self._fetch(saved["uri"], Path(scratch))
                digest = digest_of(folder) if folder is not None else None
            except FileNotFoundError:  # deleted while it was read
                digest = None
        gone = {names.TAG_CHECKPOINT_GONE: _GONE}
        self._store.tag(pointer, gone if digest is None else {names.TAG_CHECKPOINT_DIGEST: digest})

    def upload(self, experiment_id: str, run_id: str, saved: events.Saved, keep: int | None) -> str | None:
        """Uploads a checkpoint as a loadable model and returns its id; None where Tune has deleted it.

        Args:
            experiment_id: where the model is made.
            run_id: the trial's run.
            saved: the checkpoint.
            keep: how many uploads of this run stay; None keeps all.

        Raises:
            SinkUnavailableError, OSError: it cannot be fetched or sent now.
        """
        pointer = self.point(experiment_id, run_id, saved)
        identity = {names.TAG_MODEL_SOURCE: pointer, names.TAG_MODEL_ROLE: names.MODEL_UPLOADED}
        found = self._store.find(experiment_id, identity)
        whole = [model.model_id for model in found if model.ready]
        if not whole:
            with tempfile.TemporaryDirectory(prefix="drl-track-") as scratch:
                folder = self._fetch(saved["uri"], Path(scratch))
                if folder is None:
                    _log.warning("%s is gone: Tune has deleted it before it could be uploaded", saved["uri"])
                    self._store.tag(pointer, {names.TAG_CHECKPOINT_GONE: _GONE})
                    return None
                digest = digest_of(folder)
                packaged, why_not = package(folder, Path(scratch) / "model")
                tags = {**_tags(run_id, saved), names.TAG_CHECKPOINT_DIGEST: digest}
                tags[names.TAG_MODEL_LOADABLE] = why_not or "true"
                spec = _spec(saved, identity, tags, run_id)
                model_id = found[0].model_id if found else self._store.create(experiment_id, spec)
                self._store.upload(model_id, packaged or folder)
                self._store.tag(model_id, tags)
                self._store.finish(model_id)
                whole = [model_id]
        if keep is not None:
            self._prune(experiment_id, run_id, keep)
        return whole[0]

    def _prune(self, experiment_id: str, run_id: str, keep: int) -> None:
        """Deletes the uploads of a run beyond the best; never a pointer, never what a registered version is made of."""
        mine = {names.TAG_MODEL_ROLE: names.MODEL_UPLOADED, names.TAG_MODEL_RUN: run_id}
        uploads = sorted((model for model in self._store.find(experiment_id, mine) if model.ready), key=_rank)
        for model in uploads[:-keep]:
            if not self._store.delete(model.model_id, run_id):
                _log.info("%s is kept: a registered version was made of it", model.model_id)


def _rank(model: FoundModel) -> tuple[float, int]:
    score = float(model.tags.get(names.TAG_CHECKPOINT_SCORE, "-inf"))
    return score, int(model.tags.get(names.TAG_CHECKPOINT_STEP, "0"))


def _identity(run_id: str, saved: events.Saved) -> str:
    """Returns what a checkpoint is found by: a URI may hold what no query can quote, and be written again."""
    return hashlib.sha256(f"{run_id}|{saved['uri']}|{saved['step']}".encode()).hexdigest()[:32]


def _tags(run_id: str, saved: events.Saved) -> Mapping[str, str]:
    tags = {
        names.TAG_CHECKPOINT_URI: saved["uri"],
        names.TAG_CHECKPOINT_STEP: str(saved["step"]),
        names.TAG_CHECKPOINT_ITERATION: str(saved["iteration"]),
        names.TAG_MODEL_RUN: run_id,
    }
    if "score" in saved:
        tags[names.TAG_CHECKPOINT_SCORE] = repr(saved["score"])
    return tags


def _spec(saved: events.Saved, identity: Mapping[str, str], tags: Mapping[str, str], run_id: str) -> ModelSpec:
    return ModelSpec(f"{saved['name']}-step{saved['step']}", identity, tags, run_id)


def digest_of(folder: Path) -> str:
    """Returns sha256 over the names and contents of all files of a folder, whatever their order on disk."""
    total = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        one = hashlib.sha256()
        with path.open("rb") as content:
            while block := content.read(_BLOCK):
                one.update(block)
        total.update(f"{path.relative_to(folder).as_posix()}\0{one.hexdigest()}\n".encode())
    return total.hexdigest()


def package(folder: Path, target: Path) -> tuple[Path | None, str]:
    """Makes a loadable model of an RLlib checkpoint, in a process of its own.

    Returns:
        The model's folder and '', or None and why there is none: another trainable's checkpoint, a module whose
        class this machine cannot import. Its files are then uploaded as they are.
    """
    command = [sys.executable, "-m", _PACKAGER, str(folder), str(target)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_PACKAGER_LIMIT_S, check=False, env=environment
        )
    except (OSError, subprocess.SubprocessError) as error:
        return None, f"not packaged: {error}"
    if done.returncode == 0:
        return target, ""
    said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    _log.info("%s is uploaded as it is: %s", folder, said)
    return None, f"not packaged: {said}"
