"""Reading what the tracker delivered: sealed files where they hold everything, else the server; then copies."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from drl_ray_tracking import load_runs, names
from drl_ray_tracking.analysis import mlflow_source
from drl_ray_tracking.analysis.run_cache import CACHE_VARIABLE, RunCache
from drl_ray_tracking.tracking.delivery import Delivery
from drl_ray_tracking.tracking.histories import Histories
from drl_ray_tracking.tracking.mlflow_sink import MlflowSink
from drl_ray_tracking.tracking.progress import Progress
from tests.tracking.journals import Written, numbered, opening, result, sweep, sweep_end, trial, trial_end
from tests.tracking.test_delivery import drain

pytestmark = pytest.mark.mlflow

METRICS = ["loss", "reward"]


class Asked:
    """Counts what is asked of a store, request by request."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from mlflow.tracking import MlflowClient

        self.of: dict[str, int] = dict.fromkeys(("histories", "files", "lists"), 0)
        self._watch(monkeypatch, MlflowClient, "get_metric_history", "histories")
        self._watch(monkeypatch, MlflowClient, "list_artifacts", "lists")
        self._watch(monkeypatch, mlflow_source, "fetch_artifact", "files")

    def _watch(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, what: str) -> None:
        real = getattr(owner, name)

        def counted(*arguments: Any, **keywords: Any) -> Any:
            self.of[what] += 1
            return real(*arguments, **keywords)

        monkeypatch.setattr(owner, name, counted)

    def since(self) -> dict[str, int]:
        """Returns the counts that are not zero, and starts again."""
        found = {what: count for what, count in self.of.items() if count}
        self.of = dict.fromkeys(self.of, 0)
        return found


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    return Asked(monkeypatch)


def sweep_of(uri: str, tmp_path: Path, trials: tuple[str, ...] = ("a", "b")) -> list[Written]:
    files = None if uri.startswith("http") else str(tmp_path / "files")
    events = [opening(uri, experiment_name=tmp_path.name, artifact_location=files), sweep()]
    for name in trials:
        events += [trial(name), *(result(name, step, loss=1.0 / step, reward=float(step)) for step in (1, 2, 3))]
        events.append(trial_end(name))
    return [*events, sweep_end()]


def deliver(events: list[Written], folder: Path, start_ms: int = 1_000_000) -> None:
    delivery = Delivery(
        MlflowSink(events[0][2]["tracking_uri"]), Progress(), lambda *_: None, histories=Histories(folder)
    )
    drain(delivery, numbered(events, start_ms))


@pytest.fixture(params=["sqlite", "http"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A store with one sweep of two finished trials, delivered as the courier does."""
    kind = "mlflow_server" if request.param == "http" else "sqlite_store"
    given = request.getfixturevalue(kind)
    uri = given() if callable(given) else given
    deliver(sweep_of(uri, tmp_path), tmp_path / "kept")
    yield uri


def client_of(uri: str) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(uri)


def run_id_of(uri: str, experiment: str, name: str = "a") -> str:
    runs = load_runs(uri, experiment, metrics=[], cache=False).runs
    return str(runs.index[runs["trial_id"] == name][0])


def rows_of(frame: pd.DataFrame) -> list[tuple[Any, ...]]:
    return list(frame.astype({"run_id": "str", "metric": "str"}).itertuples(index=False, name=None))


def test_sealed_histories_are_read_in_one_request_a_run_and_are_what_the_server_has(
    store: str, tmp_path: Path, asked: Asked
) -> None:
    sealed = load_runs(store, tmp_path.name, metrics=METRICS, cache=False)
    assert asked.since() == {"files": 2}
    assert sealed.with_metrics("*") is sealed and len(sealed.histories) == 12
    client = client_of(store)
    for run_id in sealed.runs.index:
        client.delete_tag(run_id, names.TAG_HISTORIES)
    answered = load_runs(store, tmp_path.name, metrics=METRICS, cache=False)
    assert asked.since() == {"histories": 4}
    assert rows_of(answered.histories) == rows_of(sealed.histories)


def test_a_whole_sweep_is_read_in_one_request_and_verified_run_by_run(
    sqlite_store: Callable[[], str], tmp_path: Path, asked: Asked
) -> None:
    uri = sqlite_store()
    trials = tuple("abcdefgh")
    deliver(sweep_of(uri, tmp_path, trials), tmp_path / "kept")
    for cache in (False, True):
        bundled = load_runs(uri, tmp_path.name, metrics=METRICS, cache=cache)
        assert asked.since() == {"files": 1} and len(bundled.histories) == 8 * 6
    touched = run_id_of(uri, tmp_path.name, "c")
    client_of(uri).log_metric(touched, "loss", 9.0, timestamp=5_000_000, step=4)
    partly = load_runs(uri, tmp_path.name, metrics=METRICS, cache=False)
    assert asked.since() == {"files": 1, "histories": 2}, "the touched run alone is asked for"
    assert partly.run_history("loss", touched)[4] == 9.0
    load_runs(uri, tmp_path.name, metrics=METRICS)
    assert asked.since() == {"files": 1, "histories": 2}, "seven copies are there; its own file is tried"
    parent = str(bundled.parents.index[0])
    (name,) = json.loads(client_of(uri).get_run(parent).data.tags[names.TAG_BUNDLES])
    broken = tmp_path / "broken" / name
    broken.parent.mkdir()
    broken.write_bytes(b"PK and no more")
    client_of(uri).log_artifact(parent, str(broken))
    assert rows_of(load_runs(uri, tmp_path.name, metrics=METRICS, cache=False).histories) == rows_of(partly.histories)
    assert asked.since() == {"files": 1 + 8, "histories": 2}, "one by one then"


def test_a_second_reading_asks_for_nothing(store: str, tmp_path: Path, asked: Asked) -> None:
    first = load_runs(store, tmp_path.name, metrics=["loss"])
    assert asked.since() == {"files": 2}
    again = load_runs(store, tmp_path.name, metrics=METRICS)
    assert asked.since() == {}
    assert rows_of(again.histories[again.histories["metric"] == "loss"]) == rows_of(first.histories)
    for _ in range(2):
        with pytest.raises(Exception, match="kept no evaluation series"):
            load_runs(store, tmp_path.name, metrics=[]).series(run_id_of(store, tmp_path.name))
    assert asked.since() == {"lists": 1}, "that a sealed run has no series is known for good"


def test_what_the_server_answered_is_kept_too(store: str, tmp_path: Path, asked: Asked) -> None:
    run_id = run_id_of(store, tmp_path.name)
    client_of(store).delete_tag(run_id, names.TAG_HISTORIES)
    load_runs(store, tmp_path.name, metrics=["loss"])
    assert asked.since() == {"files": 1, "histories": 1}
    load_runs(store, tmp_path.name, metrics=["reward"])
    assert asked.since() == {"histories": 1}
    both = load_runs(store, tmp_path.name, metrics=METRICS)
    assert asked.since() == {} and len(both.histories) == 12


@pytest.mark.parametrize("how", ["argument", "variable"])
def test_copies_can_be_turned_off(
    how: str, store: str, tmp_path: Path, asked: Asked, monkeypatch: pytest.MonkeyPatch, isolated_home: Path
) -> None:
    if how == "variable":
        monkeypatch.setenv(CACHE_VARIABLE, "OFF")
    for _ in range(2):
        load_runs(store, tmp_path.name, metrics=METRICS, cache=how == "variable")
        assert asked.since() == {"files": 2}
    assert not (isolated_home / "drl_track_cache").exists()


def test_copies_may_lie_elsewhere_and_are_private(
    store: str, tmp_path: Path, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "copies"))
    for _ in range(2):
        load_runs(store, tmp_path.name, metrics=METRICS)
    assert asked.since() == {"files": 2}
    kept = list((tmp_path / "copies").rglob("*.parquet"))
    assert sorted(path.name for path in kept) == [names.HISTORIES_ARTIFACT] * 2


# --- what a seal does not cover ------------------------------------------------------------------------------


def add_point(client: Any, run_id: str, tmp_path: Path) -> None:
    client.log_metric(run_id, "loss", 9.0, timestamp=5_000_000, step=4)


def add_metric(client: Any, run_id: str, tmp_path: Path) -> None:
    client.log_metric(run_id, "other", 9.0, timestamp=5_000_000, step=1)


def write_the_last_step_again(client: Any, run_id: str, tmp_path: Path) -> None:
    client.log_metric(run_id, "loss", 9.0, timestamp=5_000_000, step=3)


def raise_the_epoch(client: Any, run_id: str, tmp_path: Path) -> None:
    client.set_tag(run_id, names.TAG_EPOCH, "2")


def open_it_again(client: Any, run_id: str, tmp_path: Path) -> None:
    client.update_run(run_id, status="RUNNING")


def change_the_file(client: Any, run_id: str, tmp_path: Path) -> None:
    other = tmp_path / "other" / names.HISTORIES_ARTIFACT
    other.parent.mkdir()
    other.write_bytes(b"PAR1 and no more")
    client.log_artifact(run_id, str(other))


def claim_other_points(client: Any, run_id: str, tmp_path: Path) -> None:
    seal = json.loads(client.get_run(run_id).data.tags[names.TAG_HISTORIES])
    client.set_tag(run_id, names.TAG_HISTORIES, json.dumps({**seal, "points": 7}))


@pytest.mark.parametrize(
    "change",
    [
        add_point, add_metric, write_the_last_step_again, raise_the_epoch, open_it_again, change_the_file,
        claim_other_points,
    ],
)  # fmt: skip
def test_a_run_that_was_touched_is_read_from_the_server(
    change: Callable[[Any, str, Path], None], sqlite_store: Callable[[], str], tmp_path: Path, asked: Asked
) -> None:
    uri = sqlite_store()
    deliver(sweep_of(uri, tmp_path), tmp_path / "kept")
    run_id = run_id_of(uri, tmp_path.name)
    if change is not change_the_file:  # whose copy here is still the true one
        load_runs(uri, tmp_path.name, metrics=METRICS)
    asked.since()
    change(client_of(uri), run_id, tmp_path)
    runs = load_runs(uri, tmp_path.name, metrics=METRICS)
    assert asked.since()["histories"] == 2
    assert runs.unreadable == ()
    points = {(point.step, point.value) for point in client_of(uri).get_metric_history(run_id, "loss")}
    read = runs.run_history("loss", run_id)
    assert set(read.items()) == points if change is not write_the_last_step_again else read[3] == 9.0


def test_a_restored_sweep_and_a_completing_import_are_read_whole(
    sqlite_store: Callable[[], str], tmp_path: Path, asked: Asked
) -> None:
    """The later journal writes below the highest step, which no latest value shows: the seal has to be gone."""
    uri = sqlite_store()
    events = sweep_of(uri, tmp_path)
    deliver(events, tmp_path / "kept")
    load_runs(uri, tmp_path.name, metrics=METRICS)
    again = [events[0], sweep(epoch=2), trial("a", resumed_step=1, params={}), result("a", 2, loss=7.0)]
    deliver([*again, trial_end("a"), sweep_end()], tmp_path / "again", start_ms=2_000_000)
    asked.since()
    runs = load_runs(uri, tmp_path.name, metrics=["loss"])
    assert asked.since()["histories"] == 1
    read = runs.run_history("loss", run_id_of(uri, tmp_path.name))
    assert read.to_dict() == {1: 1.0, 2: 7.0}, "the first attempt's steps 2 and 3 were taken back"


def test_an_artifact_store_out_of_reach_costs_a_few_tries(
    sqlite_store: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: Asked
) -> None:
    uri = sqlite_store()
    trials = tuple(f"t{number}" for number in range(12))
    deliver(sweep_of(uri, tmp_path, trials), tmp_path / "kept")
    tried: list[str] = []

    def away(artifact_uri: str, path: str, tracking_uri: str) -> bytes:
        tried.append(path)
        raise OSError("the artifact store is away")

    monkeypatch.setattr(mlflow_source, "fetch_artifact", away)
    runs = load_runs(uri, tmp_path.name, metrics=METRICS, max_workers=1)
    assert tried.count(names.HISTORIES_ARTIFACT) == 5 and len(tried) == 6, "the bundle, then a few"
    assert len(runs.histories) == 12 * 6 and runs.unreadable == ()


# --- the copies ------------------------------------------------------------------------------------------------

STATE, OTHER_STATE = "0123456789abcdef", "fedcba9876543210"


def test_old_copies_go_when_there_are_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    cache = RunCache.of("http://ada:secret@host/")
    for age, run_id in enumerate(("old", "newer", "newest")):
        cache.keep(run_id, STATE, "file", b"x" * 100)
        path = cache.find(run_id, STATE, "file")
        assert path is not None
        os.utime(path, (age, age))
    cache.prune(limit_bytes=250)
    assert [cache.find(run_id, STATE, "file") is None for run_id in ("old", "newer", "newest")] == [True, False, False]
    assert RunCache.of("http://ada:changed@host/").find("newest", STATE, "file"), "a new password, the same store"
    assert RunCache.of("http://other/").find("newest", STATE, "file") is None
    cache.keep("newest", OTHER_STATE, "file", b"y")
    assert cache.find("newest", STATE, "file") is None, "of a run as it was before"


def test_a_disk_that_takes_no_copy_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file"))
    cache = RunCache.of("http://host/")
    cache.keep("run", STATE, "file", b"x")
    cache.prune()
    assert cache.find("run", STATE, "file") is None


def test_only_what_the_cache_kept_is_ever_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    cache = RunCache.of("http://host/")
    cache.keep("run", STATE, "file", b"x" * 100)
    kept = cache.find("run", STATE, "file")
    assert kept is not None
    ours = kept.parents[2]
    theirs = [
        tmp_path / "thesis" / "data" / "only copy",
        ours.parent / "thesis" / "data" / "only copy",
        ours.parent / STATE / "run" / STATE / "no marker beside it",
        ours / "notes" / "mine" / "not of a run",
    ]
    for path in theirs:
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x" * 100)
    cache.prune(limit_bytes=0)
    assert cache.find("run", STATE, "file") is None
    assert all(path.is_file() for path in theirs)
