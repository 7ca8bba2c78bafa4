"""A set of runs knows a metric by all its names, and its sweeps however they were read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from drl_ray_tracking import names
from drl_ray_tracking.analysis.compare import compare
from drl_ray_tracking.analysis.evaluations import weights_step
from drl_ray_tracking.analysis.runset import RunSet, objective_of
from drl_ray_tracking.analysis.runtable import parents_table
from drl_ray_tracking.errors import ConfigurationError, DataError

METRIC, MARKER = names.DEFAULT_METRIC, names.EVALUATION_MARKER
RAW, RAW_MARKER = (names.legal_metric_name(names.tune_path(name)) for name in (METRIC, MARKER))


@pytest.fixture
def raw(make_runs: Any) -> RunSet:
    """Runs of a store written with RLlib's own names: the last evaluation left the metric undefined."""
    told: RunSet = make_runs([{"history": [(100, 1.0), (200, 2.0)], "evaluated": (100, 200, 300)}])
    renamed = told.histories.astype({"metric": "str", "run_id": "str"}).replace({METRIC: RAW, MARKER: RAW_MARKER})
    both = (RAW, RAW_MARKER)
    return replace(told, histories=renamed, metrics=both, loaded=frozenset(both))


def lagging(runs: RunSet) -> pd.DataFrame:
    """The histories of parallel evaluation: a result's evaluation is of the weights 100 env steps before it."""
    told = runs.histories
    return told.assign(value=told["value"].where(told["metric"] != RAW_MARKER, told["step"] - 100.0))


def test_raw_names_are_read_by_the_vocabulary(raw: RunSet) -> None:
    assert raw.resolve(METRIC) == raw.resolve(names.tune_path(METRIC)) == RAW
    assert raw.evaluation_marker == RAW_MARKER
    assert compare(raw, metric=METRIC, at="best").best_run.value == 2.0
    assert weights_step(replace(raw, histories=lagging(raw)), "r00", 200) == 100
    raw.runs["objective"], raw.runs["objective_mode"] = METRIC, "min"
    assert objective_of(raw) == (RAW, "min")


def test_the_marker_of_evaluations_works_by_its_raw_name(raw: RunSet) -> None:
    assert raw.final(METRIC).loc["r00", "step"] == 300
    with pytest.raises(DataError, match=r"whose last value of .* is undefined"):
        compare(raw, metric=METRIC)


def test_an_objective_that_no_run_has_is_none(make_runs: Any) -> None:
    runs = make_runs([{"value": 1.0, "objective": "eval/episode/return_mean", "objective_mode": "max"}])
    assert objective_of(runs) == (names.DEFAULT_METRIC, "max")


def test_narrowing_a_tune_result_keeps_its_sweep(make_runs: Any) -> None:
    runs = make_runs([{"value": 1.0, "sweep_id": "s"}, {"value": 2.0, "sweep_id": "s", "status": "FAILED"}])
    told = {"name": "n", "status": "FINISHED", "start_ms": 0, "end_ms": 1}
    parents = parents_table({"s": {**told, "sweep_id": "s"}, "t": {**told, "sweep_id": "t"}})
    runs = replace(runs, parents=parents)
    assert len(runs.with_status("FINISHED").sweep("latest")) == 1
    assert list(runs.sweep("s").parents.index) == ["s"]
    with pytest.raises(ConfigurationError, match="there is no sweep 't'"):
        runs.sweep("s").sweep("t")


def test_narrowing_keeps_the_parents_of_runs_without_a_sweep_id(make_runs: Any) -> None:
    runs = make_runs([{"value": 1.0, "parent_run_id": "p"}])
    parents = parents_table({"p": {"name": "n", "status": "FINISHED", "start_ms": 0, "end_ms": 1, "sweep_id": None}})
    assert isinstance(parents, pd.DataFrame)
    assert list(replace(runs, parents=parents).with_status("FINISHED").parents.index) == ["p"]
