"""Checkpoints delivered to a store in memory: pointers, what is uploaded and kept, what Tune has deleted, replays."""

from __future__ import annotations

import json
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyarrow.fs import LocalFileSystem

from drl_ray_tracking import names
from drl_ray_tracking.tracking import checkpoints
from drl_ray_tracking.tracking.checkpoint_policy import CheckpointWishes
from drl_ray_tracking.tracking.checkpoints import digest_of
from drl_ray_tracking.tracking.delivery import Delivery
from drl_ray_tracking.tracking.journal import Event
from drl_ray_tracking.tracking.model_store import MemoryModel, legal_model_name
from drl_ray_tracking.tracking.progress import Progress
from drl_ray_tracking.tracking.sink import MemorySink, SinkRefusedError, SinkUnavailableError
from drl_ray_tracking.tracking.trial_files import fetch_folder
from tests.tracking.journals import checkpoint, numbered, opening, result, sweep, sweep_end, trial, trial_end


@pytest.fixture(autouse=True)
def plain_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """These checkpoints are no RLlib's; tests/models packages real ones."""
    monkeypatch.setattr(checkpoints, "package", lambda folder, target: (None, "not packaged: a text"))


def saved(tmp_path: Path, step: int) -> str:
    folder = tmp_path / f"checkpoint_{step:06d}"
    folder.mkdir(exist_ok=True)
    (folder / "weights").write_text(f"weights at {step}")
    return str(folder)


def journal(tmp_path: Path, upload: str, keep: int | None, scores: list[float | None]) -> list[Event]:
    """A trial that saves at every step from 1 on, with these scores; the last checkpoint comes after its end."""
    written = [opening(), sweep(checkpoints={"upload": upload, "keep": keep}), trial("t")]
    saves = []
    for step, score in enumerate(scores, start=1):
        written.append(result("t", step))
        extra: dict[str, Any] = {} if score is None else {"score": score}
        saves.append(checkpoint("t", step, saved(tmp_path, step), **extra))
        written.append(saves[-1])
    return numbered([*written[:-1], trial_end("t"), saves[-1], sweep_end()])


def run(sink: MemorySink, events: list[Event], progress: Progress | None = None) -> Progress:
    progress = progress or Progress()
    delivery = Delivery(sink, progress, fetch_folder)
    delivery.deliver(events)
    while progress.files_left:
        delivery.upload_next(lambda seq: events[seq - 1])
    return progress


def models(sink: MemorySink, role: str) -> dict[int, MemoryModel]:
    """The models of a role by their step."""
    of_role = [model for model in sink.models.models.values() if model.tags[names.TAG_MODEL_ROLE] == role]
    found = {int(model.tags[names.TAG_CHECKPOINT_STEP]): model for model in of_role}
    assert len(found) == len(of_role), "a checkpoint is there twice"
    assert all(model.ready for model in of_role)
    return found


SCORES = [0.5, 2.0, None, 1.0]


@pytest.mark.parametrize(
    ("upload", "keep", "uploaded"),
    [
        ("none", None, set()),
        ("last", 1, {4}),
        ("last", 2, {3, 4}),
        ("best", 1, {2}),
        ("best", 2, {2, 4}),
        ("best", 4, {1, 2, 3, 4}),
        ("all", None, {1, 2, 3, 4}),
        ("all", 2, {2, 4}),
    ],
)
def test_every_checkpoint_is_pointed_at_and_the_wanted_ones_are_uploaded(
    tmp_path: Path, upload: str, keep: int | None, uploaded: set[int]
) -> None:
    sink = MemorySink()
    events = journal(tmp_path, upload, keep, SCORES)
    run(sink, events)
    pointers, uploads = models(sink, names.MODEL_POINTER), models(sink, names.MODEL_UPLOADED)
    assert set(pointers) == {1, 2, 3, 4}
    assert set(uploads) == uploaded
    for step, pointer in pointers.items():
        assert pointer.files == {}
        assert {(point.key, point.value, point.step) for point in pointer.points} == {("loss", 1.0 / step, step)}
        assert pointer.tags[names.TAG_CHECKPOINT_URI] == saved(tmp_path, step)
        assert pointer.tags[names.TAG_CHECKPOINT_DIGEST] == digest_of(Path(saved(tmp_path, step)))
    by_id = {id(model): model_id for model_id, model in sink.models.models.items()}
    for step, model in uploads.items():
        assert model.files == {"weights": f"weights at {step}".encode()}
        assert model.tags[names.TAG_MODEL_SOURCE] == by_id[id(pointers[step])]
        assert model.tags[names.TAG_CHECKPOINT_DIGEST] == pointers[step].tags[names.TAG_CHECKPOINT_DIGEST]
        assert model.tags[names.TAG_MODEL_LOADABLE] == "not packaged: a text"
    (child,) = [found for found in sink.runs.values() if found.parent_run_id]
    assert {(point.step, point.value) for point in child.points} == {(step, 1.0 / step) for step in pointers}


def test_delivered_again_from_any_point_nothing_is_there_twice(tmp_path: Path) -> None:
    events = journal(tmp_path, "all", 2, SCORES)
    for stop in range(3, len(events)):
        sink = MemorySink()
        state = run(sink, events[:stop]).to_json()
        again = Progress.from_json(json.loads(json.dumps(state)))
        run(sink, events[random.Random(stop).randrange(2, stop) :], again)
        assert set(models(sink, names.MODEL_POINTER)) == {1, 2, 3, 4}
        assert set(models(sink, names.MODEL_UPLOADED)) == {2, 4}


def test_a_checkpoint_that_tune_deleted_is_said_on_its_pointer(tmp_path: Path) -> None:
    events, sink = journal(tmp_path, "all", None, [1.0, 2.0]), MemorySink()
    (tmp_path / "checkpoint_000001" / "weights").unlink()
    (tmp_path / "checkpoint_000001").rmdir()
    progress = run(sink, events)
    pointers = models(sink, names.MODEL_POINTER)
    assert "deleted by Tune" in pointers[1].tags[names.TAG_CHECKPOINT_GONE]
    assert names.TAG_CHECKPOINT_DIGEST not in pointers[1].tags
    assert names.TAG_CHECKPOINT_GONE not in pointers[2].tags
    assert set(models(sink, names.MODEL_UPLOADED)) == {2}
    assert progress.malformed == 0


def test_an_upload_that_fails_half_way_ends_whole_and_is_not_ready_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events, sink, progress = journal(tmp_path, "last", 1, [1.0]), MemorySink(), Progress()
    delivery = Delivery(sink, progress, fetch_folder)
    delivery.deliver(events)
    delivery.upload_next(lambda seq: events[seq - 1])
    upload = sink.models.upload

    def broken(model_id: str, folder: Path) -> None:
        sink.models.models[model_id].files["wei"] = b"half"
        raise SinkUnavailableError("connection reset")

    monkeypatch.setattr(sink.models, "upload", broken)
    for _ in range(2):
        with pytest.raises(SinkUnavailableError, match="connection reset"):
            delivery.upload_next(lambda seq: events[seq - 1])
    (half,) = [model for model in sink.models.models.values() if model.files]
    assert not half.ready
    assert set(progress.to_json()["checkpoints"]["waiting"][0][1]) >= {"uri", "step"}
    monkeypatch.setattr(sink.models, "upload", upload)
    delivery.upload_next(lambda seq: events[seq - 1])
    assert not progress.files_left
    assert models(sink, names.MODEL_UPLOADED)[1] is half


def test_a_store_without_models_takes_everything_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events, sink = journal(tmp_path, "all", None, [1.0, 2.0]), MemorySink()

    def refuse(*args: Any) -> None:
        raise SinkRefusedError("404: no such endpoint")

    monkeypatch.setattr(sink.models, "find", refuse)
    progress = run(sink, events)
    assert progress.refused == {}
    (child,) = [found for found in sink.runs.values() if found.parent_run_id]
    assert len(child.points) == 2
    assert child.status == "FINISHED"


def test_a_driver_that_died_leaves_its_choice_to_the_courier(tmp_path: Path) -> None:
    events, sink, progress = journal(tmp_path, "best", 1, [2.0, 1.0, 0.5]), MemorySink(), Progress()
    delivery = Delivery(sink, progress, fetch_folder)
    delivery.deliver(events[:-3])
    delivery.close_open_runs("KILLED", 9_000_000)
    while progress.files_left:
        delivery.upload_next(lambda seq: events[seq - 1])
    assert set(models(sink, names.MODEL_UPLOADED)) == {1}


@pytest.mark.parametrize("name", ["../../x", "x" * 300, "späti / naïve: 1", "", "."])
def test_a_hostile_name_is_made_legal(name: str) -> None:
    made = legal_model_name(name)
    assert 0 < len(made) <= 200
    assert not set(made) & set("/:.%\"'")


@pytest.mark.parametrize(("scored", "kept"), [(20, True), (10, False), (None, True)])
def test_an_evaluation_of_earlier_weights_is_not_the_checkpoints(
    tmp_path: Path, scored: int | None, kept: bool
) -> None:
    """With parallel evaluation a result carries the one of the weights before its own."""
    result: dict[str, Any] = {names.LIFETIME_STEPS: 20, names.ITERATION: 2}
    if scored is not None:
        result[names.EVALUATION] = {names.WEIGHTS_STEP: scored}
    made = SimpleNamespace(metrics=result, checkpoint=SimpleNamespace(filesystem=LocalFileSystem(), path=str(tmp_path)))
    metrics = {"train/episode/return_mean": 1.0, "eval/trading/sharpe": 0.5}
    event = CheckpointWishes().event("run", made, {"step": 20, "metrics": metrics})
    assert ("eval/trading/sharpe" in event["metrics"]) == kept
    assert event["metrics"]["train/episode/return_mean"] == 1.0
