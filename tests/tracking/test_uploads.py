"""What has files, delivered to a store in memory: what the driver left behind, what is refused, what is drawn."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from drl_ray_tracking import names
from drl_ray_tracking.tracking import events
from drl_ray_tracking.tracking.delivery import Delivery
from drl_ray_tracking.tracking.journal import Event
from drl_ray_tracking.tracking.painter import PaintingProcess
from drl_ray_tracking.tracking.progress import Progress
from drl_ray_tracking.tracking.sink import MemorySink, SinkRefusedError, SinkUnavailableError
from drl_ray_tracking.tracking.trial_files import fetch_folder
from tests.tracking.journals import numbered, opening, result, sweep, sweep_end, trial, trial_end
from tests.tracking.test_trial_files import evaluation
from tests.waiting import wait_until


class Sketcher:
    """A painter of the tests' own: says what it was given, and draws when it is told to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen: list[dict[str, Any]] = []
        self.ready = True
        self.places = 0

    def place(self) -> Path:
        self.places += 1
        material = self.folder / f"material{self.places}"
        material.mkdir()
        return material

    def start(self) -> None:
        material = self.folder / f"material{self.places}"
        told = json.loads((material / names.MATERIAL_FILE).read_text())
        self.seen.append({**told, "files": {path.name for path in material.iterdir()} - {names.MATERIAL_FILE}})

    def drawn(self) -> Path | None:
        if not self.ready:
            return None
        pictures = self.folder / f"drawn{self.places}"
        (pictures / names.PICTURES_ARTIFACT).mkdir(parents=True, exist_ok=True)
        (pictures / names.PICTURES_ARTIFACT / "one.png").write_bytes(b"png")
        return pictures


def delivered(
    sink: MemorySink, written: list[Event], painter: Any = None, progress: Progress | None = None
) -> tuple[Delivery, Progress]:
    progress = progress or Progress()
    delivery = Delivery(sink, progress, fetch_folder, painter=painter)
    delivery.deliver(written)
    return delivery, progress


def upload_all(delivery: Delivery, written: list[Event], at_most: int = 50) -> None:
    for _ in range(at_most):
        if not (delivery.progress.files_left or delivery.progress.drawing):
            return
        delivery.upload_next(lambda seq: written[seq - 1])
    raise AssertionError(f"something is left: {delivery.progress}")


def child(sink: MemorySink) -> Any:
    (run,) = [run for run in sink.runs.values() if run.parent_run_id]
    return run


def storage(tmp_path: Path) -> Path:
    """A trial's folder in Tune's storage: two evaluations, an event file, something the trial logged."""
    folder = tmp_path / "storage"
    folder.mkdir()
    evaluation(folder / names.SERIES_DIR, 1, [1.0, 2.0])
    evaluation(folder / names.SERIES_DIR, 2, [1.0, 0.5])
    (folder / names.FILES_DIR / "notes").mkdir(parents=True)
    (folder / names.FILES_DIR / "notes" / "mine.txt").write_text("mine")
    (folder / "events.out.tfevents.1").write_bytes(b"events")
    return folder


SERIES = {
    f"{names.SERIES_ARTIFACT}/{file}" for file in (names.SERIES_FILE, "best_episode.parquet", "worst_episode.parquet")
}


def test_files_of_a_trial_whose_driver_died_are_found_in_its_storage(tmp_path: Path) -> None:
    folder = storage(tmp_path)
    tagged = trial("t")[2]["tags"] | {names.TAG_STORAGE: str(folder)}
    written = numbered([opening(), sweep(pictures=True), trial("t", tags=tagged), result("t", 1)])
    sink, sketcher = MemorySink(), Sketcher(tmp_path)
    delivery, progress = delivered(sink, written, sketcher)
    assert not progress.files_left
    delivery.close_open_runs("KILLED", 5)
    assert progress.files_left == 1
    again = Delivery(
        sink, Progress.from_json(json.loads(json.dumps(progress.to_json()))), fetch_folder, painter=sketcher
    )
    upload_all(again, written)
    assert child(sink).status == "KILLED"
    assert set(child(sink).artifacts) == {
        *SERIES,
        "notes/mine.txt",
        f"{names.TENSORBOARD_ARTIFACT}/events.out.tfevents.1",
        f"{names.PICTURES_ARTIFACT}/one.png",
    }


def test_files_of_a_running_trial_are_sent_once_and_again_when_they_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = storage(tmp_path)
    own = folder / names.FILES_DIR
    tagged = trial("t")[2]["tags"] | {names.TAG_STORAGE: str(folder)}
    written = numbered([opening(), sweep(), trial("t", tags=tagged)])
    sink = MemorySink()
    delivery, progress = delivered(sink, written)
    sent: list[set[str]] = []
    log_folder = sink.log_folder

    def counted(run_id: str, local: Path, artifacts: str) -> None:
        sent.append({path.relative_to(local).as_posix() for path in local.rglob("*") if path.is_file()})
        log_folder(run_id, local, artifacts)

    monkeypatch.setattr(sink, "log_folder", counted)
    for _ in range(2):
        delivery.look_for_files()
    (own / "#2").write_text("new")
    (own / "notes" / "mine.txt").write_text("changed")
    delivery.look_for_files()
    assert sent == [{"notes/mine.txt"}, {"_x23_2", "notes/mine.txt"}]
    assert child(sink).artifacts == {"notes/mine.txt": b"changed", "_x23_2": b"new"}
    (own / "last").write_text("last")
    end = numbered([trial_end("t", folders={"": str(own)})], start_ms=2_000_000)
    end = [Event(4, end[0].time_ms, end[0].kind, end[0].trial, end[0].payload)]
    delivery.deliver(end)
    upload_all(delivery, [*written, *end])
    assert sent[2:] == [{"last"}], "what was sent is not sent again"
    assert not progress.storages


def test_a_look_that_fails_is_taken_again_and_every_trial_has_its_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []
    for number in range(30):
        own = tmp_path / str(number) / names.FILES_DIR
        own.mkdir(parents=True)
        (own / "mine").touch()
        started.append(trial(f"t{number}", tags={names.TAG_STORAGE: str(tmp_path / str(number))}))
    written = numbered([opening(), sweep(), *started])
    sink = MemorySink()
    delivery, _ = delivered(sink, written)
    with monkeypatch.context() as broken:
        broken.setattr(sink, "log_folder", lambda *arguments: (_ for _ in ()).throw(SinkUnavailableError("down")))
        delivery.look_for_files()
    for _ in range(3):
        delivery.look_for_files()
    assert sum("mine" in run.artifacts for run in sink.runs.values()) == 30


def test_pictures_come_last_are_drawn_once_and_hold_nothing_up(tmp_path: Path) -> None:
    folder = storage(tmp_path)
    tagged = trial("t")[2]["tags"] | {names.TAG_STORAGE: str(folder), names.TAG_OBJECTIVE: "loss"}
    end = trial_end("t", folders={names.SERIES_ARTIFACT: str(folder / names.SERIES_DIR)})
    written = numbered([opening(), sweep(pictures=True), trial("t", tags=tagged, config={}), result("t", 1), end])
    sink, sketcher = MemorySink(), Sketcher(tmp_path)
    sketcher.ready = False
    delivery, progress = delivered(sink, written, sketcher)
    moved = [delivery.upload_next(lambda seq: written[seq - 1]) for _ in range(5)]
    assert moved == [True, True, False, False, False], "two events with files, then waiting for the picture"
    assert set(child(sink).artifacts) == {"config.json", *SERIES}
    assert not progress.files_left, "what was measured is there"
    (seen,) = sketcher.seen
    assert seen["files"] == {names.SERIES_FILE, names.BEST_EPISODE_FILE, names.WORST_EPISODE_FILE}
    assert seen["points"] == {"loss": [[1, 1.0, 1_000_004]]}, "the objective"
    late = [*written, *numbered([result("t", 2)], start_ms=2_000_000)]
    late[-1] = Event(len(late), *[getattr(late[-1], part) for part in ("time_ms", "kind", "trial", "payload")])
    delivery.deliver(late[-1:])
    assert len(child(sink).points) == 2, "metrics flow on"
    sketcher.ready = True
    upload_all(delivery, late)
    assert f"{names.PICTURES_ARTIFACT}/one.png" in child(sink).artifacts
    assert sketcher.places == 1


def test_a_drawing_waits_until_it_may_begin_and_is_then_not_interrupted(tmp_path: Path) -> None:
    written = numbered([opening(), sweep(pictures=True), trial("t"), trial_end("t")])
    sink, sketcher = MemorySink(), Sketcher(tmp_path)
    delivery, progress = delivered(sink, written, sketcher)

    def upload(may_draw: bool) -> bool:
        return delivery.upload_next(lambda seq: written[seq - 1], may_draw=may_draw)

    assert upload(False), "files are no drawing"
    assert not upload(False) and sketcher.places == 0
    assert not upload(True) and sketcher.places == 1
    assert upload(False) and not progress.drawing, "what has begun is finished"
    assert progress.drawn == 1


def test_a_run_of_another_trainable_shows_whatever_it_reports(tmp_path: Path) -> None:
    values = {f"m{number}": float(number) for number in range(3)} | {"perf/x": 1.0}
    written = numbered([opening(), sweep(pictures=True), trial("t"), result("t", 1, **values), trial_end("t")])
    sink, sketcher = MemorySink(), Sketcher(tmp_path)
    upload_all(delivered(sink, written, sketcher)[0], written)
    assert list(sketcher.seen[0]["points"]) == ["m0", "m1", "m2", "perf/x"], "its own before the tracker's"


def test_no_picture_is_drawn_where_none_is_wanted(tmp_path: Path) -> None:
    written = numbered([opening(), sweep(), trial("t"), trial_end("t"), sweep_end()])
    sketcher = Sketcher(tmp_path)
    _, progress = delivered(MemorySink(), written, sketcher)
    assert (progress.files_left, progress.drawing, sketcher.places) == (0, [], 0)


def test_a_store_that_fails_while_pictures_are_sent_gets_them_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = numbered([opening(), sweep(pictures=True), trial("a"), trial("b"), trial_end("a"), trial_end("b")])
    sink, sketcher = MemorySink(), Sketcher(tmp_path)
    delivery, progress = delivered(sink, written, sketcher)
    for _ in range(3):
        delivery.upload_next(lambda seq: written[seq - 1])
    assert progress.drawing == ["a", "b"]
    healthy = sink.log_folder

    def down(*arguments: Any) -> None:
        raise SinkUnavailableError("down")

    monkeypatch.setattr(sink, "log_folder", down)
    with pytest.raises(SinkUnavailableError, match="pictures of trial a: down"):
        delivery.upload_next(lambda seq: written[seq - 1])
    assert progress.drawing == ["b", "a"], "the other first"
    monkeypatch.setattr(sink, "log_folder", healthy)
    upload_all(delivery, written)
    assert sum(f"{names.PICTURES_ARTIFACT}/one.png" in run.artifacts for run in sink.runs.values()) == 2


def test_files_that_a_store_refuses_are_said_on_their_run_and_it_takes_everything_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = tmp_path / "large"
    large.mkdir()
    (large / "file").write_bytes(b"x")
    files = events.FILES, "t", {"folder": "plots", "path": str(large), "stays": True}
    written = numbered([opening(), sweep(), trial("t"), files, result("t", 1), trial_end("t")])
    sink = MemorySink()

    def refuse(*arguments: Any) -> None:
        raise SinkRefusedError("413 Request Entity Too Large")

    monkeypatch.setattr(sink, "log_folder", refuse)
    delivery, progress = delivered(sink, written)
    upload_all(delivery, written)
    assert "413" in child(sink).tags[f"{names.TAG_LEFT_OUT}.plots"]
    assert not progress.refused and child(sink).status == "FINISHED" and len(child(sink).points) == 1
    assert (large / "file").exists(), "it stays"


@pytest.mark.parametrize(
    ("folder", "stored"), [("no/#1", "no/_x23_1"), ("series", "series"), ("tensorboard", "tensorboard")]
)
def test_what_was_kept_for_an_upload_is_sent_as_it_is_and_removed_after_it(
    tmp_path: Path, folder: str, stored: str
) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "a#b.txt").write_text("x")
    files = events.FILES, "t", {"folder": folder, "path": str(kept)}
    written = numbered([opening(), sweep(), trial("t"), files])
    sink = MemorySink()
    upload_all(delivered(sink, written)[0], written)
    assert set(child(sink).artifacts) == {f"{stored}/a_x23_b.txt"}
    assert not kept.exists()


def test_a_storage_that_cannot_be_opened_ends_no_courier(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tagged = {names.TAG_STORAGE: "nothing-known://bucket/trial"}
    end = trial_end("t", folders={"": "nothing-known://bucket/trial/drl_files"})
    written = numbered([opening(), sweep(), trial("t", tags=tagged), end])
    sink = MemorySink()
    delivery, progress = delivered(sink, written[:3])
    delivery.look_for_files()
    delivery.deliver(written[3:])
    upload_all(delivery, written)
    assert progress.malformed == 1 and "cannot be uploaded: left out" in caplog.text
    assert child(sink).status == "FINISHED"


# --- the process that draws ------------------------------------------------------------------------------


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Makes the painter run a program of the test's instead."""

    def use(code: str) -> None:
        module = tmp_path / "drawing_of_the_test.py"
        module.write_text(code)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.setattr("drl_ray_tracking.tracking.painter._PROGRAM", module.stem)

    return use


def test_a_drawing_that_fails_says_why_and_what_it_drew_is_there(
    programs: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    programs("import sys, pathlib\npathlib.Path(sys.argv[2], 'a.png').touch()\nraise SystemExit('no ink')")
    painter = PaintingProcess(tmp_path)
    assert painter.place().is_dir()
    painter.start()
    pictures = wait_until(painter.drawn, timeout_s=30, what="the drawing ends")
    assert [path.name for path in pictures.iterdir()] == ["a.png"]
    assert "the pictures are not complete: no ink" in caplog.text


def test_a_drawing_that_hangs_is_given_up_for_the_next(programs: Any, tmp_path: Path) -> None:
    programs("import time, sys\nprint('at work', flush=True)\ntime.sleep(600)")
    painter = PaintingProcess(tmp_path)
    first = painter.place()
    (first / "of the first").touch()
    painter.start()
    assert painter.drawn() is None
    process = painter._process
    assert process is not None
    second = painter.place()
    assert process.poll() is not None
    assert list(second.iterdir()) == []


def test_the_program_draws_without_a_store_and_at_the_lowest_priority(tmp_path: Path) -> None:
    material, pictures = tmp_path / "material", tmp_path / "pictures"
    material.mkdir()
    pictures.mkdir()
    points = {"train/episode/return_mean": [[100, 1.0, 1], [200, 2.0, 2]]}
    (material / names.MATERIAL_FILE).write_text(json.dumps({"tags": {"mlflow.runName": "r"}, "points": points}))
    code = (
        "import sys, os\nsys.argv = ['x', *sys.argv[1:]]\n"
        "from drl_ray_tracking.analysis.trial_pictures import main\nmain()\n"
        "print(os.nice(0), 'mlflow' in sys.modules, 'ray' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(material), str(pictures)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["19", "False", "False"]
    assert {path.name for path in (pictures / names.PICTURES_ARTIFACT).iterdir()} == {"learning_curves.png"}
    assert "action_mix.png: neither the metrics" in done.stderr
