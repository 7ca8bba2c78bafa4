"""The sealed file of a run's points: every point or no seal, whatever crashes, restarts and other couriers do."""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
import tracemalloc
import zipfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drl_ray_tracking import names
from drl_ray_tracking.tracking import histories, sealing
from drl_ray_tracking.tracking.delivery import Delivery
from drl_ray_tracking.tracking.histories import Histories
from drl_ray_tracking.tracking.journal import Event
from drl_ray_tracking.tracking.progress import Progress
from drl_ray_tracking.tracking.sink import MemoryRun, MemorySink, MetricPoint, SinkUnavailableError
from drl_ray_tracking.trials.sealed import COLUMNS, Seal, bundle_names, member_name
from tests.tracking.journals import Written, numbered, opening, result, sweep, sweep_end, trial, trial_end
from tests.tracking.test_delivery import FlakySink, drain, no_files, run_of

SWEEP: list[Written] = [
    opening(),
    sweep(),
    trial("a"),
    trial("b"),
    result("a", 1, loss=1.0, reward=0.1),
    result("b", 1),
    result("a", 2),
    ("hparams", "a", {"step": 2, "changed": {"lr": "0.2"}, "initial": {"lr": "0.1"}}),
    trial("a", resumed_step=1, params={}),
    result("a", 2),
    trial_end("a"),
    result("b", 2),
    trial_end("b", "FAILED"),
    sweep_end(),
]


def points_in(run: MemoryRun) -> set[tuple[str, int, float, int]]:
    table = pq.read_table(io.BytesIO(run.artifacts[names.HISTORIES_ARTIFACT])).to_pylist()
    return {tuple(row[name] for name in COLUMNS) for row in table}


def points_of(run: MemoryRun) -> set[tuple[str, int, float, int]]:
    return {(point.key, point.step, point.value, point.time_ms) for point in run.points}


def seal_of(run: MemoryRun) -> Seal | None:
    return Seal.from_text(run.tags.get(names.TAG_HISTORIES))


def delivery_of(sink: MemorySink, folder: Path, progress: Progress | None = None) -> Delivery:
    return Delivery(sink, progress or Progress(), no_files, histories=Histories(folder))


def test_an_ended_trial_has_all_its_points_in_one_file(tmp_path: Path) -> None:
    sink = MemorySink()
    drain(delivery_of(sink, tmp_path / "h"), numbered(SWEEP))
    for name in ("a", "b"):
        run = run_of(sink, name)
        assert points_in(run) == points_of(run) != set()
        content = run.artifacts[names.HISTORIES_ARTIFACT]
        assert seal_of(run) == Seal(hashlib.sha256(content).hexdigest(), len(run.points), 1)
    assert ("hparam/lr", 0, 0.1) in {row[:3] for row in points_in(run_of(sink, "a"))}
    assert not list((tmp_path / "h").glob("*.jsonl")), "what is uploaded is forgotten"
    assert names.HISTORIES_ARTIFACT not in run_of(sink, "").artifacts


@settings(max_examples=150, deadline=None)
@given(
    crashes=st.lists(st.tuples(st.integers(1, 30), st.booleans(), st.booleans(), st.booleans()), max_size=4),
    cuts=st.lists(st.integers(0, len(SWEEP)), max_size=4),
)
def test_a_seal_is_true_whatever_crashes(crashes: list[tuple[int, bool, bool, bool]], cuts: list[int]) -> None:
    """A courier may die anywhere, with or without memory of its progress, and lose what it kept beside it."""
    sink, journal, progress = FlakySink(), numbered(SWEEP), Progress()

    def read(seq: int) -> Event | None:
        return journal[seq - 1]

    with tempfile.TemporaryDirectory() as scratch:
        for (fails_in, after, forgets, loses), cut in zip(crashes, [*cuts, *[len(SWEEP)] * 4], strict=False):
            sink.fails_in, sink.after = fails_in, after
            delivery = delivery_of(sink, Path(scratch), progress)
            remembered = Progress.from_json(json.loads(json.dumps(progress.to_json())))
            try:
                delivery.deliver(journal[progress.acked : cut])
                while progress.uploads:
                    delivery.upload_next(read)
            except SinkUnavailableError:
                pass
            sink.fails_in = -1
            progress = remembered if forgets else progress
            for kept in Path(scratch).glob("*.jsonl") if loses else ():
                kept.write_bytes(kept.read_bytes()[: kept.stat().st_size // 2])
        drain(delivery_of(sink, Path(scratch), progress), journal)
    for name in ("a", "b"):
        run = run_of(sink, name)
        if seal_of(run) is not None:
            assert points_in(run) == points_of(run)
        if not crashes:
            assert seal_of(run) is not None


def test_who_opens_a_run_again_takes_its_seal_away(tmp_path: Path) -> None:
    sink = MemorySink()
    drain(delivery_of(sink, tmp_path / "first"), numbered(SWEEP))
    again = [opening(), sweep(epoch=2), trial("a", resumed_step=2, params={}), result("a", 3)]
    second = delivery_of(sink, tmp_path / "second")
    second.deliver(numbered(again, start_ms=2_000_000))
    assert seal_of(run_of(sink, "a")) is None and seal_of(run_of(sink, "b")) is not None
    drain(second, numbered([*again, trial_end("a"), sweep_end()], start_ms=2_000_000))
    run = run_of(sink, "a")
    assert run.status == "FINISHED"
    assert seal_of(run) is None, "the second journal does not know what the first delivered"


def test_a_courier_of_an_earlier_driver_seals_nothing(tmp_path: Path) -> None:
    sink, journal = MemorySink(), numbered(SWEEP)
    late = delivery_of(sink, tmp_path / "late")
    late.deliver(journal[:8])
    other = [opening(), sweep(epoch=2), trial("a", resumed_step=1, params={}), result("a", 2)]
    delivery_of(sink, tmp_path / "other").deliver(numbered(other, start_ms=2_000_000))
    drain(late, journal)
    assert seal_of(run_of(sink, "a")) is None
    assert seal_of(run_of(sink, "b")) is not None


def test_a_run_that_was_there_before_is_never_sealed(tmp_path: Path) -> None:
    sink = MemorySink()
    Delivery(sink, Progress(), no_files).deliver(numbered(SWEEP[:6]))
    drain(delivery_of(sink, tmp_path / "h"), numbered(SWEEP))
    assert seal_of(run_of(sink, "a")) is None


def test_a_disk_that_keeps_nothing_delays_no_metric(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sink, journal, folder = MemorySink(), numbered(SWEEP), tmp_path / "h"
    delivery = delivery_of(sink, folder)
    delivery.deliver(journal[:4])
    folder.write_text("a file is in the way")
    drain(delivery, journal)
    assert run_of(sink, "a").status == "FINISHED" and len(run_of(sink, "a").points) == 6
    assert seal_of(run_of(sink, "a")) is None
    drain(delivery_of(other := MemorySink(), folder), journal)
    assert run_of(other, "b").status == "FAILED" and seal_of(run_of(other, "b")) is None
    assert caplog.text.count("are not kept, readers ask the store instead") == 2, "said once a trial"


def many(trials: int) -> list[Written]:
    events: list[Written] = [opening(), sweep()]
    for name in map(str, range(trials)):
        events += [trial(name), result(name, 1), trial_end(name)]
    return [*events, sweep_end()]


def test_at_the_end_the_very_same_files_are_one_of_the_parent(tmp_path: Path) -> None:
    sink = MemorySink()
    drain(delivery_of(sink, tmp_path / "h"), numbered(many(5)))
    parent = run_of(sink, "")
    (name,) = bundle_names(parent.tags[names.TAG_BUNDLES])
    bundle = zipfile.ZipFile(io.BytesIO(parent.artifacts[name]))
    runs = {run_id: run for run_id, run in sink.runs.items() if run is not parent}
    assert {member: bundle.read(member) for member in bundle.namelist()} == {
        member_name(run_id): run.artifacts[names.HISTORIES_ARTIFACT] for run_id, run in runs.items()
    }
    drain(delivery_of(sink, tmp_path / "again"), numbered(many(5)))
    assert bundle_names(parent.tags[names.TAG_BUNDLES]) == (name,), "the same again is nothing new"


def test_bundles_of_several_drivers_stand_side_by_side(tmp_path: Path) -> None:
    sink = MemorySink()
    drain(delivery_of(sink, tmp_path / "first"), numbered(many(4)))
    later = [opening(), sweep(epoch=2)]
    for name in ("5", "6", "7", "8"):
        later += [trial(name), result(name, 1), trial_end(name)]
    drain(delivery_of(sink, tmp_path / "second"), numbered([*later, sweep_end()], start_ms=2_000_000))
    parent = run_of(sink, "")
    found = bundle_names(parent.tags[names.TAG_BUNDLES])
    assert len(found) == 2 and set(found) == {name for name in parent.artifacts if name.endswith(".zip")}


def test_few_trials_are_not_bundled(tmp_path: Path) -> None:
    sink = MemorySink()
    drain(delivery_of(sink, tmp_path / "h"), numbered(many(3)))
    assert names.TAG_BUNDLES not in run_of(sink, "").tags


@pytest.mark.parametrize("text", [None, "", "{", "{}", "3", '"x"'])
def test_what_lists_no_bundle_is_none(text: str | None) -> None:
    assert bundle_names(text) == ()


def test_a_trial_without_a_point_is_not_sealed(tmp_path: Path) -> None:
    sink = MemorySink()
    drain(delivery_of(sink, tmp_path / "h"), numbered([opening(), sweep(), trial("a"), trial_end("a"), sweep_end()]))
    assert seal_of(run_of(sink, "a")) is None


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"sha256": "x", "points": 1}', '{"sha256": 1, "points": "a"}'])
def test_what_is_no_seal_is_none(text: str | None) -> None:
    assert Seal.from_text(text) is None


def test_points_of_any_name_and_value_come_back(tmp_path: Path) -> None:
    histories = Histories(tmp_path / "h")
    points = [MetricPoint("eval/ünï 🦄", 0.1 + 0.2, 2**40, 2**40), MetricPoint("x", -1e300, 0, 0)]
    histories.keep("../t|1", points)
    histories.keep("../t|1", points[:1])
    seal = histories.write("../t|1", 3, 7, tmp_path / "file")
    assert seal is not None and (seal.points, seal.epoch) == (2, 7)
    assert pq.read_table(tmp_path / "file").to_pylist() == [
        {"metric": point.key, "step": point.step, "value": point.value, "time_ms": point.time_ms} for point in points
    ]
    assert histories.write("../t|1", 4, 7, tmp_path / "file") is None, "one is lost"


def points(count: int) -> list[MetricPoint]:
    return [MetricPoint(f"m{number % 7}", number / 3, 1_000 + number, number % 1000) for number in range(count)]


def test_a_long_history_is_sorted_without_being_held_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(histories, "_ROWS", 1_000)
    kept, given = Histories(tmp_path / "h"), points(60_000)
    for first in range(0, len(given), 500):
        kept.keep("a", given[first : first + 500])
    kept.keep("a", given[:500])  # said again
    tracemalloc.start()
    seal = kept.write("a", len(given), 3, tmp_path / "a.parquet")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000, "all of them would be 20 MB"
    assert seal == Seal(hashlib.sha256((tmp_path / "a.parquet").read_bytes()).hexdigest(), 60_000, 3)
    rows = [tuple(row[name] for name in COLUMNS) for row in pq.read_table(tmp_path / "a.parquet").to_pylist()]
    assert rows == sorted({(point.key, point.step, point.value, point.time_ms) for point in given})


def test_where_there_is_no_room_for_sorting_it_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Histories(tmp_path / "h")
    kept.keep("a", points(10))
    monkeypatch.setattr(histories, "COLUMNS", ("metric", "step", "value", "no such, column("))
    with pytest.raises(OSError, match="cannot be sorted"):
        kept.write("a", 10, 1, tmp_path / "a.parquet")


def test_more_points_than_may_wait_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sealing, "MOST_POINTS", 3)
    sink = MemorySink()
    long = [trial("c"), *[result("c", step) for step in range(1, 9)], trial_end("c")]
    drain(delivery_of(sink, tmp_path / "h"), numbered([*SWEEP[:2], trial("b"), result("b", 1), *long, *SWEEP[-3:]]))
    assert seal_of(run_of(sink, "c")) is None and len(points_of(run_of(sink, "c"))) == 8
    assert seal_of(run_of(sink, "b")) is not None
    assert "the histories of c are not kept" in caplog.text
    assert not list((tmp_path / "h").glob("*.jsonl"))
