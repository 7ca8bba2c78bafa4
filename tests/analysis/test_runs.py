"""Reading back from a real SQLite store: what is found, what is left out, and what is said when nothing is."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drl_ray_tracking import names
from drl_ray_tracking.analysis.histories import Attempt, History, counted_points, histories_frame, parse_attempts
from drl_ray_tracking.analysis.mlflow_source import SERIES_FILE
from drl_ray_tracking.analysis.runs import RunSet, load_runs
from drl_ray_tracking.errors import ConfigurationError, DataError

SHARPE = names.DEFAULT_METRIC
HOSTILE = "<img src=x onerror=alert(1)> | ünï 🦄"


@dataclass
class Store:
    """A store with two sweeps, runs of other trackers, and a deleted experiment."""

    uri: str
    client: Any
    ids: dict[str, str]


def _point(step: int, value: float, time_ms: int, key: str = SHARPE) -> Any:
    from mlflow.entities import Metric

    return Metric(key, value, time_ms, step)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    folder = tmp_path_factory.mktemp("store")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's own import and migrations warn
        from mlflow.tracking import MlflowClient

        client = MlflowClient(tracking_uri=uri)
        client.search_experiments()
    experiment = client.create_experiment("trading", artifact_location=(folder / "artifacts").as_uri())
    client.create_experiment("empty")
    client.delete_experiment(client.create_experiment("gone"))
    ids: dict[str, str] = {}

    def run(key: str, start: int, tags: dict[str, str], points: list[Any], **options: Any) -> None:
        made = client.create_run(experiment, start_time=start, tags=tags, run_name=options.get("name", key))
        ids[key] = made.info.run_id
        for name, value in options.get("params", {}).items():
            client.log_param(made.info.run_id, name, value)
        client.log_batch(made.info.run_id, metrics=points)
        if options.get("end", True):
            client.set_terminated(made.info.run_id, "FINISHED", start + 100)

    for sweep, start in (("old", 1000), ("new", 2000)):
        run(sweep, start, {names.TAG_ROLE: names.ROLE_SWEEP, names.TAG_SWEEP_ID: f"id-{sweep}"}, [])
    for key, sweep, seed in (("a1", "old", "1"), ("b1", "new", "1"), ("b2", "new", "2")):
        tags = {
            names.TAG_ROLE: names.ROLE_TRIAL,
            names.TAG_SWEEP_ID: f"id-{sweep}",
            names.TAG_SEED: seed,
            names.TAG_CONFIG_HASH: "cafe",
            "mlflow.parentRunId": ids[sweep],
        }
        if key == "b1":
            # The second attempt resumed from step 200: what the first wrote at 300 does not count.
            tags[names.TAG_ATTEMPTS] = json.dumps([[1, 2000, 0], [2, 5000, 200]])
            points = [_point(100, 1.0, 2100), _point(200, 2.0, 2200), _point(300, 99.0, 2300)]
            points += [_point(300, 3.0, 5300), _point(400, 2.5, 5400)]
        elif key == "b2":
            points = [_point(150, float("nan"), 2100), _point(400, float("inf"), 2200)]
        else:
            points = [_point(100, 0.5, 1100)]
        run(key, start=3000 + len(ids), tags=tags, points=points, name=f"{key} {HOSTILE}", params={"lr": "0.1"})
    run("ray", 4000, {"trial_name": "PPO_1"}, [_point(1, 0.1, 4000)], params={"lr": "0.2", "seed": "7"})
    series = folder / "evaluations.parquet"
    pd.DataFrame({"step": [1], "equity": [1.0]}).to_parquet(series)
    client.log_artifact(ids["b1"], str(series), names.SERIES_ARTIFACT)
    yield Store(uri, client, ids)
    client._tracking_client.store._dispose_engine()


def test_reads_only_trials_with_their_tags_and_parameters(store: Store) -> None:
    runs = load_runs(store.uri, "trading")
    assert list(runs.runs.index) == [store.ids[key] for key in ("a1", "b1", "b2")]
    row = runs.runs.loc[store.ids["b1"]]
    assert (row["name"], row["status"], row["seed"], row["param.lr"]) == (f"b1 {HOSTILE}", "FINISHED", "1", "0.1")
    assert row["parent_run_id"] == store.ids["new"]
    assert list(runs.parents["name"]) == ["old", "new"]
    assert runs.unreadable == () and runs.notes == ()


@pytest.mark.parametrize("which", ["latest", "new", "id-new", "parent"])
def test_a_sweep_is_given_by_any_of_its_names(store: Store, which: str) -> None:
    given_as = store.ids["new"] if which == "parent" else which
    expected = {store.ids["b1"], store.ids["b2"]}
    assert set(load_runs(store.uri, "trading", sweep=given_as).runs.index) == expected
    if which != "latest":
        assert set(load_runs(store.uri, "trading").sweep(given_as).runs.index) == expected


def test_points_a_later_attempt_took_back_are_left_out(store: Store) -> None:
    runs = load_runs(store.uri, "trading")
    assert runs.run_history(SHARPE, store.ids["b1"]).to_dict() == {100: 1.0, 200: 2.0, 300: 3.0, 400: 2.5}
    assert runs.final(SHARPE).loc[store.ids["b1"]].to_list() == [2.5, 400]
    assert runs.best("evaluation/env_runners/trading/sharpe", "max").loc[store.ids["b1"]].to_list() == [3.0, 300]


def test_undefined_values_are_missing_but_their_points_are_known(store: Store) -> None:
    final = load_runs(store.uri, "trading").final(SHARPE).loc[store.ids["b2"]]
    assert np.isnan(final["value"]) and final["step"] == 400
    assert load_runs(store.uri, "trading").best(SHARPE).loc[store.ids["b2"]].isna().all()


def test_histories_nobody_asked_for_are_read_on_demand(store: Store) -> None:
    runs = load_runs(store.uri, "1", metrics=[])
    assert runs.loaded == frozenset() and runs.histories.empty
    assert list(runs.history(SHARPE).index) == [100, 150, 200, 300, 400]
    assert load_runs(store.uri, "trading", metrics=["eval/trad*"]).loaded == {SHARPE}


def test_other_trackers_runs_are_read_when_asked_for_with_a_warning(store: Store) -> None:
    runs = load_runs(store.uri, "trading", foreign=True)
    assert set(runs.runs.index) == {store.ids[key] for key in ("a1", "b1", "b2", "ray")}
    assert "1 of 4 runs" in runs.notes[0]
    row = runs.runs.loc[store.ids["ray"]]
    assert row["seed"] == "7" and len(row["config_hash"]) == 12


def test_every_page_is_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drl_ray_tracking.analysis.runs._PAGE", 1)
    assert len(load_runs(store.uri, "trading")) == 3


def test_a_history_that_cannot_be_read_is_listed_and_the_others_are_there(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient

    real = MlflowClient.get_metric_history

    def broken(client: Any, run_id: str, key: str) -> Any:
        if run_id == store.ids["a1"]:
            raise OSError("disk on fire")
        return real(client, run_id, key)

    monkeypatch.setattr(MlflowClient, "get_metric_history", broken)
    runs = load_runs(store.uri, "trading")
    assert [(item.run_id, "disk on fire" in item.reason) for item in runs.unreadable] == [(store.ids["a1"], True)]
    assert store.ids["b1"] in set(runs.histories["run_id"])
    assert runs.with_status("FAILED").unreadable == ()


def test_a_series_is_downloaded_once_and_its_absence_is_said(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = load_runs(store.uri, "trading")
    assert runs.series(store.ids["b1"])["equity"].to_list() == [1.0]
    monkeypatch.setattr("drl_ray_tracking.analysis.mlflow_source.fetch_artifact", None)
    assert runs.series(store.ids["b1"])["equity"].to_list() == [1.0]
    with pytest.raises(DataError, match=f"kept no evaluation series .artifact {SERIES_FILE}"):
        runs.series(store.ids["a1"])
    with pytest.raises(DataError, match="is not among these 3 runs"):
        runs.series("nobody")


@pytest.mark.parametrize(
    ("experiment", "options", "kind", "words"),
    [
        ("tradin", {}, ConfigurationError, "no experiment 'tradin' .did you mean 'trading'.*exist: .*empty"),
        ("4711", {}, ConfigurationError, "no experiment '4711'"),
        ("gone", {}, ConfigurationError, "is deleted: restore it"),
        ([], {}, ConfigurationError, "but got none"),
        ("empty", {}, DataError, "has no runs yet"),
        ("trading", {"sweep": "nwe"}, ConfigurationError, "no sweep 'nwe' .did you mean 'new'"),
        ("trading", {"sweep": "' or 1=1"}, ConfigurationError, "there is no sweep"),
        ("trading", {"metrics": ["eval/trading/sharp"]}, DataError, "did you mean 'eval/trading/sharpe'"),
        ("trading", {"metrics": ["none/*"]}, DataError, "matches 'none/"),
        ("trading", {"max_workers": 0}, ConfigurationError, "max_workers must be at least 1 but got 0"),
    ],
)
def test_what_cannot_be_found_is_a_clear_error(
    store: Store, experiment: Any, options: dict[str, Any], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        load_runs(store.uri, experiment, **options)


def test_an_unreachable_server_is_one_clear_error_without_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(ConfigurationError, match=r"tracking store http://\*\*\*@127.0.0.1:9 failed") as caught:
        load_runs("http://user:secret@127.0.0.1:9", "trading")
    assert "secret" not in str(caught.value)


def test_reading_makes_no_store(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="does not exist"):
        load_runs(f"sqlite:///{tmp_path / 'new.db'}", "trading")
    assert list(tmp_path.iterdir()) == []


def test_a_broken_attempts_tag_is_listed(store: Store, tmp_path: Path) -> None:
    store.client.set_tag(store.ids["a1"], names.TAG_ATTEMPTS, "[[1,")
    try:
        (item,) = load_runs(store.uri, "trading").unreadable
    finally:
        store.client.delete_tag(store.ids["a1"], names.TAG_ATTEMPTS)
    assert item.run_id == store.ids["a1"] and names.TAG_ATTEMPTS in item.reason


def test_comparing_loads_neither_mlflow_nor_ray_nor_matplotlib() -> None:
    code = (
        "import sys, drl_ray_tracking.analysis.compare\n"
        "sys.exit(','.join(sorted({'mlflow', 'ray', 'matplotlib', 'rich'} & set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_empty_run_set_says_so() -> None:
    with pytest.raises(DataError, match="none of the 0 runs has any metric"):
        RunSet(runs=pd.DataFrame()).resolve(SHARPE)


def test_a_store_can_be_copied_and_read_elsewhere(store: Store, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    shutil.copy(store.uri.removeprefix("sqlite:///"), copy)
    assert len(load_runs(f"sqlite:///{copy}", "trading")) == 3


def raw(run_id: str, metric: str, points: list[tuple[int, float, int]]) -> History:
    step, value, time_ms = zip(*points, strict=True) if points else ((), (), ())
    return History(run_id, metric, np.array(step, np.int64), np.array(value, np.float64), np.array(time_ms, np.int64))


@given(
    st.lists(st.tuples(st.integers(0, 50), st.floats(-9, 9), st.integers(0, 50)), max_size=30),
    st.permutations(range(30)),
)
def test_what_counts_does_not_depend_on_the_order_of_points(
    points: list[tuple[int, float, int]], order: list[int]
) -> None:
    unique = list({(step, time): (step, value, time) for step, value, time in points}.values())
    shuffled = [unique[index] for index in order if index < len(unique)]
    one, other = (histories_frame([raw("r", "m", points)]) for points in (unique, shuffled))
    assert one["step"].tolist() == other["step"].tolist() == sorted({point[0] for point in unique})
    assert one["value"].tolist() == other["value"].tolist()


def test_many_runs_and_metrics_are_cleaned_at_once() -> None:
    attempts = {"b": (Attempt(1, 0, 0), Attempt(2, 50, 1))}
    made = [
        raw("b", "y", [(1, 1.0, 10), (2, 9.0, 20), (2, 2.0, 60)]),
        raw("b", "x", [(3, 5.0, 30)]),
        raw("a", "x", [(7, math.inf, 1), (5, 0.5, 2), (5, 0.6, 3)]),
    ]
    frame = histories_frame(made, attempts)
    rows = list(frame.astype({"run_id": "str", "metric": "str"}).itertuples(index=False, name=None))
    assert rows[:2] == [("b", "y", 1, 1.0, 10), ("b", "y", 2, 2.0, 60)], "x at 3 was superseded"
    assert rows[2] == ("a", "x", 5, 0.6, 3) and rows[3][:3] == ("a", "x", 7) and math.isnan(rows[3][3])
    assert histories_frame([]).empty


@given(st.lists(st.integers(0, 100), min_size=1, max_size=6), st.integers(0, 6), st.integers(0, 120))
def test_a_point_counts_unless_a_later_attempt_resumed_before_it(resumed: list[int], own: int, step: int) -> None:
    attempts = [Attempt(number, number * 1000, at) for number, at in enumerate(resumed, 1)]
    own = min(max(own, 1), len(attempts))
    counted = counted_points(np.array([step]), np.array([own * 1000 + 5]), attempts)
    assert counted.tolist() == [all(step <= later.resumed_step for later in attempts[own:])]


def test_attempts_are_parsed_in_order_and_nonsense_is_refused() -> None:
    assert parse_attempts("[[2, 20, 5], [1, 10, 0]]") == (Attempt(1, 10, 0), Attempt(2, 20, 5))
    assert parse_attempts(None) == ()
    for nonsense in ("{}x", "[1]", '[["a", 1, 2]]', "[[1, 2]]"):
        with pytest.raises(ValueError, match=r"not a list|Expecting|Extra data|invalid literal"):
            parse_attempts(nonsense)
