"""Delivery of what concerns a run's life: held results, lineage, losses, heartbeats, being taken for dead."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from drl_ray_tracking import names
from drl_ray_tracking.tracking import events
from drl_ray_tracking.tracking.delivery import Delivery
from drl_ray_tracking.tracking.journal import Event, JournalWriter, new_journal_directory, read_events_of
from drl_ray_tracking.tracking.progress import Progress
from drl_ray_tracking.tracking.sink import MemorySink
from tests.tracking.journals import Written, numbered, opening, result, sweep, sweep_end, trial, trial_end, write
from tests.tracking.test_delivery import delivered, no_files, run_of


def held(name: str, step: int) -> Written:
    return events.HELD, *result(name, step)[1:]


def release(name: str, upto: int) -> Written:
    return events.RELEASE, name, {"upto": upto}


def deliver_held(written: list[Written], sink: MemorySink, progress: Progress | None = None) -> Delivery:
    journal = numbered(written)

    def recall(name: str, first: int, last: int) -> Iterator[Event]:
        return (event for event in journal[first - 1 : last] if event.kind == events.HELD and event.trial == name)

    delivery = Delivery(sink, progress or Progress(), no_files, recall=recall)
    delivery.deliver(journal[delivery.progress.acked :])
    return delivery


def steps(sink: MemorySink, name: str) -> set[int]:
    return {point.step for point in run_of(sink, name).points}


HELD: list[Written] = [
    opening(), sweep(), trial("a"), trial("b"),
    held("a", 1), held("b", 1), held("a", 2), held("a", 3),
]  # fmt: skip


def test_held_results_wait_for_their_release() -> None:
    sink = MemorySink()
    delivery = deliver_held(HELD, sink)
    assert delivery.progress.acked == len(HELD), "what waits for a checkpoint holds nothing up"
    assert (steps(sink, "a"), steps(sink, "b")) == (set(), set())
    delivery = deliver_held([*HELD, release("a", 7)], sink, delivery.progress)
    assert (steps(sink, "a"), steps(sink, "b")) == ({1, 2}, set())
    assert delivery.progress.held == {"a": 8, "b": 6}
    delivery = deliver_held([*HELD, release("a", 7), release("a", 8), trial_end("a")], sink, delivery.progress)
    assert steps(sink, "a") == {1, 2, 3}
    assert delivery.progress.held == {"b": 6}, "the journal keeps what may still be released, nothing more"


def test_what_no_checkpoint_covers_is_dropped_when_a_trial_starts_again_or_fails() -> None:
    sink = MemorySink()
    restart = [trial("a", resumed_step=1), held("a", 2), release("a", 11)]
    delivery = deliver_held([*HELD, release("a", 5), *restart, trial_end("b", "FAILED")], sink)
    assert steps(sink, "a") == {1, 2}
    assert {point.time_ms for point in run_of(sink, "a").points} == {1_000_005, 1_000_011}
    assert steps(sink, "b") == set()
    assert "b" not in delivery.progress.held


def test_a_release_may_be_delivered_again() -> None:
    sink = MemorySink()
    written = [*HELD, release("a", 7)]
    deliver_held(written, sink)
    before = set(run_of(sink, "a").points)
    deliver_held(written, sink)
    assert run_of(sink, "a").points == before


def test_the_journal_gives_one_trials_held_results_back(isolated_home: Path) -> None:
    directory = new_journal_directory()
    writer = JournalWriter(directory)
    write(writer, [*HELD, result("a", 4)])
    writer.close()
    found = read_events_of(directory, events.HELD, "a", 6, 9)
    assert [event.seq for event in found] == [7, 8]


def hparams(step: int, donor: str = "b", **changed: str) -> Written:
    return events.HPARAMS, "a", {"step": step, "changed": changed, "donor": donor}


def test_lineage_grows_and_a_replay_adds_nothing() -> None:
    sink = MemorySink()
    written = [opening(), sweep(), trial("a"), hparams(2, lr="0.2"), hparams(4, "c", kind="x", lr="0.4")]
    initial = written[3][2]
    initial["initial"] = {"lr": "0.1"}
    delivered(written, sink)
    delivered(written, sink)
    run = run_of(sink, "a")
    assert json.loads(run.tags[names.TAG_LINEAGE]) == [[1_000_004, 2, "b", ["lr"]], [1_000_005, 4, "c", ["kind", "lr"]]]
    assert sorted((p.step, p.value) for p in run.points) == [(0, 0.1), (2, 0.2), (4, 0.4)]
    assert (run.tags["hparam.lr"], run.tags["hparam.kind"]) == ("0.4", "x")


@given(st.lists(st.text("abcdefgh", min_size=1, max_size=250), min_size=1, max_size=60))
def test_a_long_lineage_loses_its_oldest_entries_and_stays_json(keys: list[str]) -> None:
    sink = MemorySink()
    changes = [hparams(step, **{key: "1"}) for step, key in enumerate(keys, start=1)]
    delivered([opening(), sweep(), trial("a"), *changes], sink)
    tag = run_of(sink, "a").tags[names.TAG_LINEAGE]
    assert len(tag) <= 8000
    assert run_of(sink, "a").points, "a name that is too long costs no run"
    kept = json.loads(tag)
    assert [entry[1] for entry in kept] == list(range(len(keys) - len(kept) + 1, len(keys) + 1))


def test_losses_add_up_and_a_replay_does_not() -> None:
    sink = MemorySink()
    losses = [(events.LOSS, "", {"count": count, "reason": f"why {count}"}) for count in (3, 4)]
    written = [opening(), sweep(), *losses]
    progress = Progress()
    delivered(written, sink, progress)
    progress.acked = 0
    delivered(written, sink, progress)
    assert progress.lost == 7
    assert run_of(sink, "").tags[names.TAG_DEGRADED] == "7 events lost: why 4"


def test_the_heartbeat_is_that_of_the_latest_driver() -> None:
    sink = MemorySink()
    old = delivered([opening(), sweep()], sink)
    old.report_health({"tracker/lag_s": 1.0}, 1000, 1)
    assert run_of(sink, "").tags[names.TAG_HEARTBEAT] == "1000"
    delivered([opening(), sweep(epoch=2)], sink).report_health({}, 2000, 1)
    old.report_health({"tracker/lag_s": 1.0}, 3000, 2)
    assert run_of(sink, "").tags[names.TAG_HEARTBEAT] == "2000"


def test_a_sweep_taken_for_dead_is_opened_again() -> None:
    sink = MemorySink()
    delivery = delivered([opening(), sweep(), trial("a"), trial("b"), trial_end("b")], sink)
    for name in ("", "a"):
        run = run_of(sink, name)
        run.status, run.tags[names.TAG_END_REASON] = "KILLED", names.END_RECONCILED
    delivery.report_health({}, 1000, 1)
    assert [run_of(sink, name).status for name in ("", "a", "b")] == ["RUNNING", "RUNNING", "FINISHED"]
    assert run_of(sink, "a").tags[names.TAG_END_REASON] == names.END_NOT_YET
    delivery.deliver([Event(6, 6, *trial_end("a")), Event(7, 7, *sweep_end())])
    assert [run_of(sink, name).status for name in ("", "a")] == ["FINISHED", "FINISHED"]
