"""Delivery to a store in memory: order, coalescing, replays that change nothing, refusals, uploads."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drl_ray_tracking import names
from drl_ray_tracking.tracking.delivery import FLUSH_POINTS, Delivery
from drl_ray_tracking.tracking.journal import Event
from drl_ray_tracking.tracking.progress import SWEEP_RUN, Progress
from drl_ray_tracking.tracking.sink import MemoryRun, MemorySink, MetricPoint, SinkRefusedError, SinkUnavailableError
from tests.tracking.journals import Written, numbered, opening, result, sweep, sweep_end, trial, trial_end


@dataclass
class FlakySink(MemorySink):
    """Fails when a countdown ends, once, before or after it has done what it was asked."""

    fails_in: int = -1
    after: bool = False
    logged: list[tuple[str, int]] = field(default_factory=list)  # (run, number of points) of every call

    def log(self, run_id: str, *, metrics: Sequence[MetricPoint] = (), **more: Any) -> None:
        def do() -> None:
            if metrics:
                self.logged.append((run_id, len(metrics)))
            MemorySink.log(self, run_id, metrics=metrics, **more)

        self._maybe(do)

    def set_status(self, run_id: str, status: str, end_ms: int) -> None:
        self._maybe(lambda: MemorySink.set_status(self, run_id, status, end_ms))

    def reopen_run(self, run_id: str, tags: Mapping[str, str]) -> None:
        self._maybe(lambda: MemorySink.reopen_run(self, run_id, tags))

    def create_run(self, experiment_id: str, spec: Any) -> str:
        made: list[str] = []
        self._maybe(lambda: made.append(MemorySink.create_run(self, experiment_id, spec)))
        return made[0]

    def log_text(self, run_id: str, text: str, artifact_file: str) -> None:
        self._maybe(lambda: MemorySink.log_text(self, run_id, text, artifact_file))

    def _maybe(self, do: Any) -> None:
        self.fails_in -= 1
        if self.fails_in != 0:
            do()
            return
        if self.after:
            do()
        raise SinkUnavailableError("HTTP 503")


def no_files(artifact_folder: str, source: str, scratch: Path) -> Path | None:
    return None


def delivered(written: list[Written], sink: MemorySink | None = None, progress: Progress | None = None) -> Delivery:
    delivery = Delivery(sink if sink is not None else MemorySink(), progress or Progress(), no_files)
    delivery.deliver(numbered(written))
    return delivery


def run_of(sink: MemorySink, name: str) -> MemoryRun:
    (run,) = [run for run in sink.runs.values() if run.tags.get(names.TAG_TRIAL_ID, "") == name]
    return run


SWEEP: list[Written] = [
    opening(),
    sweep(diff="+x"),
    trial("a", config={"lr": 0.1}),
    trial("b"),
    result("a", 1),
    result("b", 1),
    result("a", 2),
    trial_end("a"),
    trial("b", resumed_step=1, params={}),
    result("b", 2),
    ("hparams", "b", {"step": 2, "changed": {"lr": "0.2", "kind": "x"}}),
    trial_end("b", "FAILED", traceback="boom", tags={names.TAG_ERROR: "boom"}),
    sweep_end(),
]


def drain(delivery: Delivery, journal: list[Event]) -> None:
    """Delivers as the courier does: from what is acknowledged on, again after a failure, then the files."""

    def read(seq: int) -> Event | None:
        return journal[seq - 1]

    for _ in range(20):
        try:
            delivery.deliver(journal[delivery.progress.acked :])
            while delivery.progress.uploads:
                delivery.upload_next(read)
            return
        except SinkUnavailableError:
            continue
    raise AssertionError("never drained")


def state(sink: MemorySink) -> dict[str, Any]:
    return {run_id: vars(run) for run_id, run in sink.runs.items()}


def test_a_sweep_arrives_whole() -> None:
    sink = MemorySink()
    drain(Delivery(sink, Progress(), no_files), numbered(SWEEP))
    parent, a, b = run_of(sink, ""), run_of(sink, "a"), run_of(sink, "b")
    assert (parent.status, a.status, b.status) == ("FINISHED", "FINISHED", "FAILED")
    assert a.parent_run_id == b.parent_run_id == "run-0"
    assert parent.tags[names.TAG_EPOCH] == "1"
    assert {(p.key, p.step, p.value) for p in a.points} == {("loss", 1, 1.0), ("loss", 2, 0.5)}
    assert {(p.key, p.step, p.value) for p in b.points} == {("loss", 1, 1.0), ("loss", 2, 0.5), ("hparam/lr", 2, 0.2)}
    assert b.params == {"lr": "0.1"}
    assert b.tags["hparam.kind"] == "x"
    assert b.tags[names.TAG_ERROR] == "boom"
    assert json.loads(b.tags[names.TAG_ATTEMPTS]) == [[1, 1_000_004, 0], [2, 1_000_009, 1]]
    assert set(a.artifacts) == {names.CONFIG_ARTIFACT}
    assert set(b.artifacts) == {names.ERROR_ARTIFACT}
    assert set(parent.artifacts) == {names.DIFF_ARTIFACT}


@settings(max_examples=200, deadline=None)
@given(
    crashes=st.lists(st.tuples(st.integers(1, 40), st.booleans(), st.booleans()), max_size=4),
    cuts=st.lists(st.integers(0, len(SWEEP)), max_size=4),
)
def test_crashes_anywhere_change_nothing(crashes: list[tuple[int, bool, bool]], cuts: list[int]) -> None:
    """Whatever fails, before or after the store did it, with or without memory of progress, one truth arrives."""
    journal = numbered(SWEEP)
    calm = MemorySink()
    drain(Delivery(calm, Progress(), no_files), journal)
    sink = FlakySink()
    saved = Progress().to_json()
    for (fails_in, after, forgets), cut in zip(crashes, [*cuts, *[len(SWEEP)] * 4], strict=False):
        sink.fails_in, sink.after = fails_in, after
        delivery = Delivery(sink, Progress.from_json(json.loads(json.dumps(saved))), no_files)
        try:
            delivery.deliver(journal[delivery.progress.acked : cut])
            while delivery.progress.uploads:
                delivery.upload_next(lambda seq: journal[seq - 1])
        except SinkUnavailableError:
            pass
        if not forgets:
            saved = delivery.progress.to_json()
    sink.fails_in = -1
    drain(Delivery(sink, Progress.from_json(saved), no_files), journal)
    assert state(sink) == state(calm)


def test_progress_survives_as_json() -> None:
    progress = delivered(SWEEP).progress
    assert Progress.from_json({**json.loads(json.dumps(progress.to_json())), "unknown": 1}) == progress


def test_values_of_a_run_are_sent_together() -> None:
    sink = FlakySink()
    many = [opening(), sweep(), trial("a"), trial("b")]
    per_result = {f"m{n}": float(n) for n in range(70)}
    for step in range(1, 31):
        many += [result("a", step, **per_result), result("b", step, loss=1.0)]
    delivered(many, sink)
    a, b = (next(run_id for run_id, run in sink.runs.items() if run is run_of(sink, name)) for name in "ab")
    assert [count for run_id, count in sink.logged if run_id == a] == [FLUSH_POINTS, FLUSH_POINTS, 100]
    assert [count for run_id, count in sink.logged if run_id == b] == [30]


def test_a_result_of_which_a_part_has_arrived_is_not_acknowledged() -> None:
    sink = FlakySink()
    per_result = {f"m{n}": float(n) for n in range(600)}
    journal = numbered([opening(), sweep(), trial("a"), *(result("a", step, **per_result) for step in (1, 2))])
    delivery = Delivery(sink, Progress(), no_files)
    delivery.deliver(journal[:3])
    sink.fails_in = 2  # the first thousand arrives, the rest does not
    with pytest.raises(SinkUnavailableError):
        delivery.deliver(journal[3:])
    assert delivery.progress.acked == 4, "the first result has arrived whole, the second has not"
    delivery.deliver(journal[4:])
    assert (delivery.progress.acked, len(run_of(sink, "a").points)) == (5, 1200)


def test_a_failure_keeps_what_has_arrived() -> None:
    sink = FlakySink()
    setup = [opening(), sweep(), trial("a"), trial("b")]
    journal = numbered([*setup, result("a", 1), result("b", 1), result("a", 2)])
    delivery = Delivery(sink, Progress(), no_files)
    delivery.deliver(journal[:4])
    sink.fails_in = 2  # run a's values arrive, those of run b do not
    with pytest.raises(SinkUnavailableError):
        delivery.deliver(journal[4:])
    assert delivery.progress.acked == 5
    delivery.deliver(journal[5:])
    assert delivery.progress.acked == 7
    assert len(run_of(sink, "a").points) == 2
    assert len(run_of(sink, "b").points) == 1


def test_the_status_comes_after_the_last_value() -> None:
    sink = FlakySink()
    delivery = delivered([opening(), sweep(), trial("a")], sink)
    sink.fails_in = 1
    with pytest.raises(SinkUnavailableError):
        delivery.deliver([Event(4, 4, *result("a", 1)), Event(5, 5, *trial_end("a"))])
    assert run_of(sink, "a").status == "RUNNING"


def test_a_run_that_refuses_does_not_hold_up_the_others() -> None:
    sink = MemorySink()
    delivery = delivered([opening(), sweep(), trial("a"), trial("b")], sink)
    run_of(sink, "a").deleted = True
    more = [result("a", 1), result("b", 1), trial_end("a"), trial("a"), result("a", 2), trial_end("b"), sweep_end()]
    delivery.deliver([Event(seq, seq, *event) for seq, event in enumerate(more, start=5)])
    assert list(delivery.progress.refused) == ["a"]
    assert delivery.progress.acked == 11
    assert len(run_of(sink, "b").points) == 1
    assert run_of(sink, "b").status == "FINISHED"
    assert len(sink.runs) == 3, "nothing is recreated behind the user's back"


def test_a_deleted_parent_does_not_hold_up_the_trials() -> None:
    sink = MemorySink()
    delivery = delivered([opening(), sweep(), trial("a")], sink)
    run_of(sink, "").deleted = True
    delivery.report_health({"tracker/lag_s": 1.0}, 1, 1)
    delivery.deliver([Event(4, 4, *result("a", 1)), Event(5, 5, *trial_end("a")), Event(6, 6, *sweep_end())])
    assert list(delivery.progress.refused) == [SWEEP_RUN]
    assert run_of(sink, "a").status == "FINISHED"
    assert delivery.progress.ended


def test_a_deleted_experiment_keeps_everything_waiting() -> None:
    sink = MemorySink()
    delivery = delivered([opening(), sweep(), trial("a")], sink)
    more = [Event(4, 4, *result("a", 1)), Event(5, 5, *trial("b")), Event(6, 6, *trial_end("a"))]
    sink.deleted_experiments.add("1")
    with pytest.raises(SinkRefusedError, match="is deleted"):
        delivery.deliver(more)
    assert delivery.progress.refused == {}
    sink.deleted_experiments.clear()
    delivery.deliver(more[delivery.progress.acked - 3 :])
    assert run_of(sink, "a").status == "FINISHED"
    assert len(run_of(sink, "a").points) == 1
    assert run_of(sink, "b").status == "RUNNING"


def test_changed_parameters_stay_as_they_were() -> None:
    sink = MemorySink()
    delivery = delivered([opening(), sweep(), trial("a"), trial("a", params={"lr": "9"}), trial_end("a")], sink)
    assert run_of(sink, "a").params == {"lr": "0.1"}
    assert delivery.progress.refused == {}


@pytest.mark.parametrize("bad", [("result", "a", {}), ("result", "a", {"step": 1, "metrics": 3}), ("new", "", {})])
def test_a_malformed_event_is_left_out(bad: Written) -> None:
    sink = MemorySink()
    delivery = delivered([opening(), sweep(), trial("a"), bad, result("a", 1), trial_end("a")], sink)
    assert delivery.progress.acked == 6
    assert len(run_of(sink, "a").points) == 1


def test_a_journal_without_its_sweep_blocks_nothing() -> None:
    delivery = delivered([opening(), trial("a"), result("a", 1)])
    assert delivery.progress.acked == 3
    assert delivery.progress.malformed == 1


def test_a_restored_driver_continues_the_same_runs() -> None:
    sink = MemorySink()
    delivered([opening(), sweep(), trial("a"), result("a", 1)], sink)
    restored = [opening(), sweep(epoch=2), trial("a", resumed_step=1), result("a", 2), trial_end("a"), sweep_end()]
    delivery = Delivery(sink, Progress(), no_files)
    delivery.deliver(numbered(restored, start_ms=2_000_000))
    assert len(sink.runs) == 2
    assert json.loads(run_of(sink, "a").tags[names.TAG_ATTEMPTS]) == [[1, 1_000_003, 0], [2, 2_000_003, 1]]
    assert {point.step for point in run_of(sink, "a").points} == {1, 2}
    assert run_of(sink, "").tags[names.TAG_EPOCH] == "2"


def test_a_stale_courier_adds_what_is_missing_and_decides_nothing() -> None:
    """The first driver died with its server down; the second was faster to deliver."""
    stale = [opening(), sweep(), trial("a"), trial("b"), result("a", 1), result("b", 1), trial_end("b")]
    fresh = [opening(), sweep(epoch=2), trial("a", resumed_step=1), result("a", 2)]
    sink = MemorySink()
    late = Delivery(sink, Progress(), no_files)
    Delivery(sink, Progress(), no_files).deliver(numbered(fresh, start_ms=2_000_000))
    late.deliver(numbered(stale))
    late.close_open_runs("KILLED", 3_000_000)
    a, b = run_of(sink, "a"), run_of(sink, "b")
    assert (run_of(sink, "").status, a.status) == ("RUNNING", "RUNNING")
    assert run_of(sink, "").tags[names.TAG_EPOCH] == a.tags[names.TAG_EPOCH] == "2"
    assert {point.step for point in a.points} == {1, 2}
    assert json.loads(a.tags[names.TAG_ATTEMPTS]) == [[1, 1_000_003, 0], [2, 2_000_003, 1]]
    assert b.status == "FINISHED", "a trial only the first driver knew is its own to end"


def test_open_runs_are_closed_for_a_driver_that_died() -> None:
    sink = MemorySink()
    delivery = delivered([opening(), sweep(), trial("a"), trial("b"), trial_end("a")], sink)
    delivery.close_open_runs("KILLED", 77)
    assert [run_of(sink, name).status for name in ("", "a", "b")] == ["KILLED", "FINISHED", "KILLED"]
    assert delivery.progress.ended


def test_uploads_wait_without_holding_up_values(tmp_path: Path) -> None:
    (tmp_path / "series").mkdir()
    (tmp_path / "series" / "one.txt").write_text("1")
    broken = {"on": True}

    def fetch(artifact_folder: str, source: str, scratch: Path) -> Path | None:
        if broken["on"]:
            raise OSError("storage is away")
        return Path(source)

    sink = MemorySink()
    folders = {"files": str(tmp_path / "series")}
    written = [opening(), sweep(), trial("a"), trial_end("a", folders=folders, traceback="boom"), trial("b")]
    journal = numbered([*written, trial_end("b", traceback="bang")])
    delivery = Delivery(sink, Progress(), fetch)
    delivery.deliver(journal)
    assert delivery.progress.acked == 6
    assert delivery.progress.uploads == [4, 6]
    with pytest.raises(SinkUnavailableError, match="storage is away"):
        delivery.upload_next(lambda seq: journal[seq - 1])
    assert delivery.progress.uploads == [6, 4], "the others come first"
    delivery.upload_next(lambda seq: journal[seq - 1])
    broken["on"] = False
    delivery.upload_next(lambda seq: journal[seq - 1])
    assert delivery.progress.uploads == []
    assert run_of(sink, "a").artifacts == {"files/one.txt": b"1", names.ERROR_ARTIFACT: b"boom"}
    assert run_of(sink, "b").artifacts == {names.ERROR_ARTIFACT: b"bang"}


def test_files_that_are_broken_are_left_out() -> None:
    def fetch(artifact_folder: str, source: str, scratch: Path) -> Path | None:
        raise ValueError("not a Parquet file")

    journal = numbered([opening(), sweep(), trial("a"), trial_end("a", folders={"series": "/x"})])
    delivery = Delivery(MemorySink(), Progress(), fetch)
    delivery.deliver(journal)
    delivery.upload_next(lambda seq: journal[seq - 1])
    assert delivery.progress.uploads == []
    assert delivery.progress.malformed == 1


def test_progress_is_not_shared_between_copies() -> None:
    progress = Progress()
    other = copy.deepcopy(progress)
    delivered(SWEEP, progress=progress)
    assert other == Progress()


class Stingy(MemorySink):
    """Takes two calls of `log` out of three."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def log(self, run_id: str, **values: Any) -> None:
        self.calls += 1
        if self.calls % 3 == 0:
            raise SinkUnavailableError("HTTP 503")
        super().log(run_id, **values)


def test_thousands_of_parameters_get_through_a_server_that_fails_every_third_request() -> None:
    params = {f"p{number}": str(number) for number in range(2_000)}
    sink = Stingy()
    drain(Delivery(sink, Progress(), no_files), numbered([opening(), sweep(), trial("a", params=params), sweep_end()]))
    assert run_of(sink, "a").params == params
    assert sink.calls < 40, "what has arrived is not sent again"


def test_trials_of_a_fold_stand_below_its_run_and_it_ends_with_the_sweep() -> None:
    sink = MemorySink()
    written: list[Written] = [
        opening(),
        sweep(),
        trial("a", fold="0"),
        trial("b", fold="0"),
        trial("c", fold="1"),
        trial("d"),
        result("a", 1),
        trial_end("a"),
        sweep_end(),
    ]
    done = delivered(written, sink)
    parent = done.progress.runs[SWEEP_RUN]
    assert sorted(done.progress.folds) == ["0", "1"]
    for name, fold in (("a", "0"), ("b", "0"), ("c", "1")):
        run = run_of(sink, name)
        assert run.parent_run_id == done.progress.folds[fold]
        assert names.sweep_run(run.tags) == parent
    assert run_of(sink, "d").parent_run_id == parent
    for fold, run_id in done.progress.folds.items():
        run = sink.runs[run_id]
        assert run.parent_run_id == parent
        assert (run.tags[names.TAG_ROLE], run.tags[names.TAG_FOLD], run.status) == (names.ROLE_FOLD, fold, "FINISHED")
    before = copy.deepcopy(sink.runs)
    delivered(written, sink)  # a courier that lost its progress
    assert sink.runs.keys() == before.keys(), "delivered again, nothing is there twice"
    orphaned = MemorySink()
    left = delivered(written[:-1], orphaned)
    left.close_open_runs("KILLED", 99)
    assert {orphaned.runs[run_id].status for run_id in left.progress.folds.values()} == {"KILLED"}
