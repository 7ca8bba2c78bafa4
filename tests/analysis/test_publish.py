"""Publishing onto a real parent run and into a folder: all of it, twice the same, and honest where it cannot."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from drl_ray_tracking import names
from drl_ray_tracking.analysis import evaluations
from drl_ray_tracking.analysis.compare import compare
from drl_ray_tracking.analysis.publish import publish, write_report
from drl_ray_tracking.analysis.runs import load_runs
from drl_ray_tracking.errors import ConfigurationError, DataError

HOSTILE = "<img src=x onerror=alert(1)> | 🦄"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    uri = f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's own import and migrations warn
        from mlflow.tracking import MlflowClient

        made = MlflowClient(tracking_uri=uri)
        made.search_experiments()
    yield made
    made._tracking_client.store._dispose_engine()


@pytest.fixture
def sweep(client: Any, tmp_path: Path, series: pd.DataFrame) -> tuple[str, str]:
    """A sweep of two trials, the better one with an evaluation series: (experiment, parent run id)."""
    location = (tmp_path / "artifacts").as_uri()
    experiment = client.create_experiment(tmp_path.name, artifact_location=location)
    tags = {names.TAG_SWEEP_ID: "s", names.TAG_CONFIG_HASH: "cafe00"}
    parent = client.create_run(experiment, tags={**tags, names.TAG_ROLE: names.ROLE_SWEEP}).info.run_id
    file = tmp_path / "evaluations.parquet"
    series.to_parquet(file)
    for seed in ("1", "2"):
        child = {names.TAG_ROLE: names.ROLE_TRIAL, names.TAG_SEED: seed, "mlflow.parentRunId": parent}
        run_id = client.create_run(experiment, tags={**tags, **child}, run_name=f"{seed} {HOSTILE}").info.run_id
        for step in (1000, 2000):
            client.log_metric(run_id, names.DEFAULT_METRIC, float(seed) * step, step=step)
        client.set_terminated(run_id)
    client.log_artifact(run_id, str(file), names.SERIES_ARTIFACT)
    return tmp_path.name, parent


def _artifacts(client: Any, run_id: str) -> list[str]:
    top = [item.path for item in client.list_artifacts(run_id)]
    return sorted([*top, *(item.path for item in client.list_artifacts(run_id, "pictures"))])


def test_a_comparison_is_published_on_the_parent_and_again_changes_nothing(client: Any, sweep: tuple[str, str]) -> None:
    experiment, parent = sweep
    runs = load_runs(client.tracking_uri, experiment)
    pages = []
    for _ in range(2):
        assert publish(compare(runs), runs, tracking_uri=client.tracking_uri) == [parent]
        pages.append(client.get_run(parent).data.tags["mlflow.note.content"])
        assert _artifacts(client, parent) == [
            "comparison.csv",
            "pictures",
            "pictures/equity_curve.png",
            "pictures/learning_curves.png",
            "pictures/monthly_returns.png",
            "pictures/return_distribution.png",
            "report.html",
            "symbols.csv",
            "trials.csv",
        ]
        assert "Entries and exits of the best run: no picture, because the episode names no positions" in pages[-1]
    assert pages[0] == pages[1]
    assert "Among the artifacts: `report.html`, `pictures/learning_curves.png`" in pages[0]
    assert "`pictures/equity_curve.png`" in pages[0] and "<img" not in pages[0]
    assert client.get_run(parent).info.status == "RUNNING", "publishing does not end a sweep"


def test_without_the_page_a_parent_run_gets_the_rest(client: Any, sweep: tuple[str, str]) -> None:
    experiment, parent = sweep
    runs = load_runs(client.tracking_uri, experiment)
    publish(compare(runs), runs, tracking_uri=None, page=False)
    assert "report.html" not in _artifacts(client, parent)
    assert "report.html" not in client.get_run(parent).data.tags["mlflow.note.content"]


def test_a_picture_that_cannot_be_drawn_is_explained(client: Any, sweep: tuple[str, str]) -> None:
    experiment, parent = sweep
    runs = load_runs(client.tracking_uri, experiment)
    publish(compare(runs, mode="min"), runs, tracking_uri=None)
    page = client.get_run(parent).data.tags["mlflow.note.content"]
    assert "Equity of the best run, Returns of the best run" in page, "one sentence for one reason"
    assert page.count("no picture, because run") == 1 and "kept no evaluation series" in page
    assert "pictures/equity_curve.png" not in _artifacts(client, parent)


def test_a_description_stays_within_the_limit_of_a_tag(client: Any, sweep: tuple[str, str], make_runs: Any) -> None:
    _, parent = sweep
    many = make_runs(
        [
            {"name": f"{index} {HOSTILE * 8}", "config_hash": f"{index:06}", "value": 1.0, "parent_run_id": parent}
            for index in range(60)
        ]
    )
    publish(compare(many), many, tracking_uri=client.tracking_uri)
    page = client.get_run(parent).data.tags["mlflow.note.content"]
    assert len(page) <= 8000 and "more groups are in comparison.csv" in page
    assert page.rstrip().endswith("kept no evaluation series.")


def test_a_report_is_a_folder_that_can_be_written_again(make_runs: Any, series: pd.DataFrame, tmp_path: Path) -> None:
    runs = make_runs([{"name": HOSTILE, "history": [(2000, 1.0)]}], series=series.assign(position=1.0))
    folder = tmp_path / "a" / "report"
    page, report = write_report(compare(runs), runs, folder), folder / "report.md"
    assert page == folder / "report.html"
    first, shown = report.read_text(encoding="utf-8"), page.read_text(encoding="utf-8")
    assert "![Learning curves](learning_curves.png)" in first and "![Equity of the best run]" in first
    assert {path.name for path in folder.iterdir()} == {
        "comparison.csv",
        "equity_curve.png",
        "learning_curves.png",
        "monthly_returns.png",
        "report.html",
        "report.md",
        "return_distribution.png",
        "symbols.csv",
        "trades.png",
        "trials.csv",
    }
    write_report(compare(runs), runs, folder)
    assert (report.read_text(encoding="utf-8"), page.read_text(encoding="utf-8")) == (first, shown)
    bare = make_runs([{"value": 1.0}])
    write_report(compare(bare), bare, folder)
    again = report.read_text(encoding="utf-8")
    assert "no picture, because run r00 kept no evaluation series" in again
    assert not (folder / "equity_curve.png").exists(), "a picture of an earlier report would be a lie"


def test_a_value_shows_the_evaluation_it_came_from(
    make_runs: Any, series: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int | None] = []
    real = evaluations.evaluation_at
    monkeypatch.setattr(evaluations, "evaluation_at", lambda bars, step: asked.append(step) or real(bars, step))
    runs = make_runs([{"history": [(1000, 3.0), (2000, 1.0)]}], series=series)
    write_report(compare(runs, at="best"), runs, tmp_path)
    assert set(asked) == {1000}
    asked.clear()
    write_report(compare(runs), runs, tmp_path)
    assert set(asked) == {2000}
    asked.clear()
    write_report(compare(runs, at="budget", budget=1500), runs, tmp_path)
    assert set(asked) == {1000}


def test_runs_without_a_parent_cannot_be_published(make_runs: Any) -> None:
    runs = make_runs([{"value": 1.0}])
    with pytest.raises(DataError, match="the 1 runs compared have no parent run"):
        publish(compare(runs), runs, tracking_uri="sqlite:///unused.db")


def test_a_parent_the_store_does_not_have_is_a_clear_error(client: Any, make_runs: Any) -> None:
    runs = make_runs([{"value": 1.0, "parent_run_id": "0" * 32}])
    with pytest.raises(ConfigurationError, match="failed"):
        publish(compare(runs), replace(runs, tracking_uri=client.tracking_uri), tracking_uri=None)
