"""Handovers and alerts out of tags: donors by run, edited tags without harm."""

from __future__ import annotations

import json
from typing import Any

import pytest

from drl_ray_tracking.analysis.lineage import ALERTS, HANDOVERS


def test_a_donor_is_named_by_its_run_where_that_is_known(make_runs: Any) -> None:
    entries = [[2_000, 400, "t0", ["lr", "gamma"]], [3_000, 600, "elsewhere", []], [4_000, 800, "", ["lr"]]]
    runs = make_runs(
        [{"trial_id": "t0", "value": 1.0}, {"trial_id": "t1", "value": 2.0, "lineage": json.dumps(entries)}]
    )
    found = runs.handovers()
    assert list(found.columns) == list(HANDOVERS)
    assert found[["run_id", "step", "donor", "changed"]].to_numpy().tolist() == [
        ["r01", 400, "r00", "lr, gamma"], ["r01", 600, "elsewhere", ""], ["r01", 800, "", "lr"],
    ]  # fmt: skip


@pytest.mark.parametrize("tag", ["", "{", "3", "[1]", '[["a", "b", "c", []]]', '[[1, -5, "x", []]]'])
def test_a_tag_that_somebody_edited_tells_of_nothing(make_runs: Any, tag: str) -> None:
    assert make_runs([{"trial_id": "t", "value": 1.0, "lineage": tag}]).handovers().empty


def test_alerts_are_listed_with_the_step_at_which_they_were_first_raised(make_runs: Any) -> None:
    runs = make_runs(
        [
            {"value": 1.0, "alert.collapsed": "900", "alert.entropy_collapsed": None},
            {"value": 1.0, "alert.collapsed": "300", "alert.entropy_collapsed": "somebody's text"},
        ]
    )
    found = runs.alerts()
    assert list(found.columns) == list(ALERTS)
    assert found[["run_id", "alert", "step"]].to_numpy().tolist() == [
        ["r01", "collapsed", 300], ["r00", "collapsed", 900],
    ]  # fmt: skip
    assert make_runs([{"value": 1.0}]).alerts().empty
