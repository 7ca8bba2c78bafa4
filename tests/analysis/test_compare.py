"""What a comparison says: seeds as replicates, refusals in words, nothing dropped silently, no markup from names."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from drl_ray_tracking import names
from drl_ray_tracking.analysis.compare import compare
from drl_ray_tracking.analysis.runset import RunSet
from drl_ray_tracking.analysis.tables import escape
from drl_ray_tracking.errors import ConfigurationError, DataError

HOSTILE = "<img src=x onerror=alert(1)> | [x](javascript:1)\n# ünï 🦄 [red]"


def _grid(make_runs: Any, values: dict[str, list[float]], **extra: Any) -> RunSet:
    return make_runs(
        [
            {"config_hash": f"{lr}-hash", "seed": str(seed), "value": value, "param.lr": lr, **extra}
            for lr, scores in values.items()
            for seed, value in enumerate(scores)
        ]
    )


def test_groups_are_ranked_by_their_interquartile_mean(make_runs: Any) -> None:
    runs = _grid(make_runs, {"0.1": [1.0, 2.0, 3.0, 100.0], "0.2": [5.0, 6.0, 7.0, 8.0]})
    result = compare(runs)
    assert list(result.groups["label"]) == ["lr=0.2 (0.2-ha)", "lr=0.1 (0.1-ha)"]
    assert list(result.groups["rank"]) == [1, 2]
    assert list(result.groups["iqm"]) == [6.5, 2.5]
    assert result.groups["mean"].to_list() == [6.5, 26.5]
    assert result.groups["sd"].iloc[0] == pytest.approx(math.sqrt(5 / 3))
    assert (result.best_run.value, result.best_run.group) == (100.0, "lr=0.1 (0.1-ha)")
    assert "probability 0.75" in result.findings[0]
    assert "the best of 8 trials" in result.findings[-1]


def test_lower_is_better_turns_everything_round(make_runs: Any) -> None:
    values = {"0.1": [1.0, 2.0, 3.0, 9.0], "0.2": [5.0, 6.0, 7.0, 8.0], "0.3": [4.0, 4.5, 5.0, 5.5]}
    lowest = compare(_grid(make_runs, values), mode="min")
    negated = compare(_grid(make_runs, {lr: [-value for value in scores] for lr, scores in values.items()}))
    assert list(lowest.groups.index) == list(negated.groups.index)
    assert lowest.best_run.run_id == negated.best_run.run_id
    assert lowest.findings[0] == negated.findings[0]


@pytest.mark.parametrize(("seeds", "words"), [(1, "1 seed each"), (2, "2 seeds each")])
def test_below_three_seeds_it_refuses_to_rank_in_words(make_runs: Any, seeds: int, words: str) -> None:
    result = compare(_grid(make_runs, {"0.2": [9.0] * seeds, "0.1": [1.0] * seeds}))
    assert result.findings[0] == f"{words}: no ranking; at least 3 are needed."
    assert result.groups["rank"].isna().all() and result.groups["low"].isna().all()
    assert list(result.groups["label"]) == ["lr=0.1 (0.1-ha)", "lr=0.2 (0.2-ha)"], "by label, not by value"


def test_groups_with_too_few_seeds_come_after_the_ranked_ones(make_runs: Any) -> None:
    result = compare(_grid(make_runs, {"0.1": [1.0] * 3, "0.2": [2.0] * 3, "0.3": [50.0]}))
    assert list(result.groups.index) == ["0.2-hash", "0.1-hash", "0.3-hash"]
    assert "Not ranked, with fewer than 3 seeds: lr=0.3 (0.3-ha)." in result.findings


def test_one_run_alone_is_compared_with_nothing(make_runs: Any) -> None:
    result = compare(make_runs([{"value": 0.5}]))
    assert result.findings == ("One group, 1 seed: nothing to rank it against.", "The only value is 0.5 (run-0).")
    assert result.groups["label"].to_list() == ["c0ffee"]


def test_what_is_left_out_is_counted_and_named(make_runs: Any) -> None:
    runs = make_runs(
        [
            {"value": 1.0},
            {"name": "still going", "status": "RUNNING", "value": 9.0},
            {"name": "crashed", "status": "FAILED"},
            {"name": "silent"},
            {"name": "undefined", "history": [(100, 5.0), (200, math.nan)]},
            {"name": "hashless", "config_hash": None, "value": 3.0},
        ]
    )
    notes = compare(runs).notes
    assert f"Left out: 1 run without any defined point of {names.DEFAULT_METRIC}: silent." in notes
    assert "Left out: 1 run with status RUNNING: still going." in notes
    assert "Left out: 1 run with status FAILED: crashed." in notes
    assert "Left out: 1 run without a value of config_hash: hashless." in notes
    assert any("is undefined (an older one is not taken): undefined." in note for note in notes)
    assert list(compare(runs).values["name"]) == ["run-0"] and compare(runs).n_given == 6
    assert compare(runs, at="best", statuses=["FINISHED", "RUNNING"]).best_run.name == "still going"


def test_no_finished_run_is_an_error_that_counts_them(make_runs: Any) -> None:
    with pytest.raises(DataError, match=r"none of the 2 .* be compared.*2 runs with status RUNNING: run-0, run-1"):
        compare(make_runs([{"status": "RUNNING", "value": 1.0}] * 2))


def test_a_missing_metric_names_those_there_are(make_runs: Any) -> None:
    with pytest.raises(DataError, match=r"did you mean 'eval/trading/sharpe'.*They have 1 metrics"):
        compare(make_runs([{"value": 1.0}]), metric="eval/trading/sharp")


def test_every_wrong_setting_is_reported_at_once(make_runs: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        compare(
            make_runs([{"value": 1.0}]),
            mode="top",
            at="first",
            by="sed",
            confidence=1.0,
            statuses=[],  # type: ignore[arg-type]
        )
    for words in ("mode must be", "at must be", "did you mean 'seed'", "confidence must", "statuses must"):
        assert words in str(caught.value)


def test_a_seed_counts_once_however_many_runs_it_has(make_runs: Any) -> None:
    runs = make_runs([{"seed": seed, "value": value} for seed, value in (("1", 1.0), ("1", 3.0), ("2", 4.0))])
    result = compare(runs)
    assert result.groups[["n_seeds", "n_runs", "mean"]].iloc[0].to_list() == [2, 3, 3.0]
    assert any(note.startswith("1 runs repeat a seed") for note in result.notes)


def test_runs_without_a_seed_count_one_each_and_it_is_said(make_runs: Any) -> None:
    result = compare(make_runs([{"seed": None, "value": 1.0}] * 3))
    assert result.groups["n_seeds"].iloc[0] == 3
    assert "3 of 3 runs recorded no seed: each counts as one." in result.notes


@pytest.mark.parametrize("column", ["data_digest", "env", "timeframe", "symbols", "window_id"])
def test_runs_on_different_data_are_said_not_to_be_comparable(make_runs: Any, column: str) -> None:
    result = compare(make_runs([{column: "1m", "value": 1.0}, {column: "1M", "value": 2.0}]))
    assert any(note.startswith("Not comparable: the runs come from 2") and "1m, 1M" in note for note in result.notes)


def test_last_and_best_differ_and_the_best_counts_what_it_looked_at(make_runs: Any) -> None:
    runs = make_runs([{"history": [(1, 5.0), (2, 1.0)]}, {"history": [(1, 0.0), (3, 2.0)]}])
    assert compare(runs).best_run.value == 2.0
    best = compare(runs, at="best")
    assert (best.best_run.value, best.best_run.step, best.n_evaluations) == (5.0, 1, 4)
    assert "the best of 4 evaluations of 2 trials" in best.findings[-1]
    assert any("different env steps, 2 to 3" in note for note in compare(runs).notes)


def test_an_undefined_last_evaluation_is_not_replaced_by_an_older_one(make_runs: Any) -> None:
    """A KPI that is undefined is no point at all in the store: other metrics of the evaluation say there was one."""
    runs = make_runs(
        [
            {"history": [(1, 5.0), (2, 4.0)], "evaluated": [1, 2]},
            {"name": "quiet at last", "history": [(1, 9.0)], "evaluated": [1, 2]},
            {"name": "never traded", "evaluated": [1, 2]},
        ]
    )
    assert runs.final(names.DEFAULT_METRIC)["step"].to_list() == [2, 2, 2]
    assert runs.points_of(names.DEFAULT_METRIC).to_list() == [2, 2, 2], "undefined ones were looked at as well"
    last = compare(runs)
    assert last.best_run.value == 4.0 and list(last.values["name"]) == ["run-0"]
    assert any(note.endswith("(an older one is not taken): quiet at last.") for note in last.notes)
    assert any("without any defined point" in note and note.endswith("never traded.") for note in last.notes)
    best = compare(runs, at="best")
    assert (best.best_run.name, best.best_run.value, best.n_evaluations) == ("quiet at last", 9.0, 4)
    assert runs.curves(names.DEFAULT_METRIC)["r01"].isna().to_list() == [False, True]


def test_at_equal_budget_each_run_counts_with_what_it_was_then(make_runs: Any) -> None:
    runs = make_runs(
        [
            {"history": [(100, 1.0), (200, 2.0), (900, 9.0)]},
            {"history": [(150, 3.0), (300, 4.0)]},
            {"name": "late", "history": [(250, 7.0), (350, 8.0)]},
        ]
    )
    result = compare(runs, at="budget")
    assert (result.budget, result.values["value"].to_list()) == (300, [2.0, 4.0, 7.0])
    given = compare(runs, at="budget", budget=220)
    assert given.values["value"].to_list() == [2.0, 3.0]
    assert any("without a point of eval/trading/sharpe within 220 env steps: late." in note for note in given.notes)
    assert "its last value within 220 env steps" in given.to_markdown()
    with pytest.raises(ConfigurationError, match="goes with at='budget'"):
        compare(runs, budget=220)
    with pytest.raises(DataError, match=r"3 runs without a point .* within 10 env steps"):
        compare(runs, at="budget", budget=10)


def _walk_forward(make_runs: Any, scores: dict[str, list[list[float]]]) -> RunSet:
    return make_runs(
        [
            {
                "config_hash": f"{lr}-hash",
                "seed": str(seed),
                "window_id": f"w{window}",
                "data_digest": "d",
                "symbols": f"S{window}",
                "value": value,
                "param.lr": lr,
            }
            for lr, by_seed in scores.items()
            for seed, by_window in enumerate(by_seed)
            for window, value in enumerate(by_window)
        ]
    )


def test_windows_that_every_seed_was_scored_on_are_columns(make_runs: Any) -> None:
    scores = {"0.1": [[1.0, 11.0], [2.0, 12.0], [3.0, 13.0]], "0.2": [[2.0, 12.5], [3.0, 13.5], [5.0, 15.5]]}
    result = compare(_walk_forward(make_runs, scores))
    assert result.windows == ("w0", "w1")
    assert result.groups["n_seeds"].to_list() == [3, 3] and result.groups["n_runs"].to_list() == [6, 6]
    assert result.groups.loc["0.1-hash", "mean"] == 7.0 and result.groups.loc["0.1-hash", "sd"] == 1.0
    assert any("scored on the same 2 data windows" in note for note in result.notes)
    assert not any("Not comparable" in note or "repeat a seed" in note for note in result.notes)
    assert result.variance is not None and result.variance.shares()["window"] > 0.9
    assert any("% the market window" in sentence for sentence in result.findings)
    assert len(compare(_walk_forward(make_runs, scores), by="seed").windows) == 2


def test_windows_that_some_seeds_lack_are_averaged_and_said(make_runs: Any) -> None:
    scores = {"0.1": [[1.0, 11.0], [2.0, 12.0], [3.0]], "0.2": [[2.0, 12.5], [3.0, 13.5], [5.0, 15.5]]}
    result = compare(_walk_forward(make_runs, scores))
    assert result.windows == () and result.variance is not None and result.variance.window is None
    assert any("Not comparable: the runs come from 2 data windows" in note for note in result.notes)


def test_every_pair_of_ranked_groups_is_tested_and_adjusted(make_runs: Any) -> None:
    values = {"0.1": [1.0, 1.1, 0.9, 1.0], "0.2": [5.0, 5.2, 4.8, 5.0], "0.3": [1.1, 1.0, 1.2, 0.9], "0.4": [9.0]}
    result = compare(_grid(make_runs, values))
    pairs = result.pairs
    assert list(zip(pairs["first"], pairs["second"], strict=True)) == [
        ("0.2-hash", "0.3-hash"), ("0.2-hash", "0.1-hash"), ("0.3-hash", "0.1-hash"),
    ]  # fmt: skip
    assert (pairs["p_adjusted"] >= pairs["p_value"]).all() and (pairs["p_improvement"] >= 0.5).all()
    assert pairs["p_adjusted"].le(0.05).to_list() == [True, True, False]
    assert "2 of 3 pairs of ranked groups are apart at a false discovery rate of 5 %" in " ".join(result.findings)
    assert result.seeds_needed == 2.0 and result.to_dict()["seeds_needed"] == 2.0
    lowest = compare(_grid(make_runs, {lr: [-value for value in own] for lr, own in values.items()}), mode="min")
    assert lowest.pairs["hedges_g"].to_list() == pytest.approx(pairs["hedges_g"].to_list())


def test_groups_without_any_spread_are_not_tested(make_runs: Any) -> None:
    result = compare(_grid(make_runs, {"0.1": [1.0] * 3, "0.2": [2.0] * 3}))
    assert result.pairs["p_value"].isna().all() and result.pairs["p_improvement"].to_list() == [1.0]
    assert json.dumps(result.to_dict(), allow_nan=False)


def test_by_takes_a_parameter_by_its_short_name(make_runs: Any) -> None:
    result = compare(_grid(make_runs, {"0.1": [1.0], "0.2": [2.0]}), by="lr")
    assert result.by == "param.lr" and list(result.groups["label"]) == ["lr=0.1", "lr=0.2"]


def test_labels_name_what_differs_and_stay_apart(make_runs: Any) -> None:
    runs = make_runs(
        [
            {"config_hash": "aaaaaa1", "value": 1.0, "param.seed": "1", "param.a/size": "1", "param.b/size": "2"},
            {"config_hash": "aaaaaa2", "value": 1.0, "param.seed": "2", "param.a/size": "3", "param.b/size": None},
        ]
    )
    assert sorted(compare(runs).groups["label"]) == [
        "a/size=1 b/size=2 (aaaaaa1)",
        "a/size=3 b/size=unset (aaaaaa2)",
    ]


def test_a_comparison_repeats_and_a_generator_changes_only_the_intervals(make_runs: Any) -> None:
    runs = _grid(make_runs, {"0.1": [1.0, 2.0, 4.0, 8.0], "0.2": [1.5, 2.5, 7.0, 9.0]})
    assert compare(runs).to_dict() == compare(runs).to_dict()
    seeded = [compare(runs, rng=np.random.default_rng(5)).to_dict() for _ in range(2)]
    assert seeded[0] == seeded[1]
    one = compare(runs.with_status("FINISHED")).groups.loc["0.1-hash", ["low", "high"]]
    alone = compare(_grid(make_runs, {"0.1": [1.0, 2.0, 4.0, 8.0]})).groups.loc["0.1-hash", ["low", "high"]]
    assert one.to_list() == alone.to_list(), "an interval does not depend on the other groups"


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=12))
def test_the_interval_lies_among_the_seeds(make_runs: Any, scores: list[float]) -> None:
    row = compare(_grid(make_runs, {"0.1": scores})).groups.iloc[0]
    slack = 1e-9 * max(1.0, *map(abs, scores))
    assert min(scores) - slack <= row["low"] <= row["high"] <= max(scores) + slack
    assert row["n_seeds"] == len(scores)


def test_hostile_names_stay_text_everywhere(make_runs: Any) -> None:
    runs = make_runs([{"name": HOSTILE, "value": 1.0, "param.lr": HOSTILE}, {"value": 0.0, "param.lr": "x"}])
    result = compare(runs, by="lr")
    page = result.to_markdown()
    assert "<img" not in page and "&lt;img src=x onerror=alert(1)&gt; \\| \\[x\\]" in page
    table = [line for line in page.splitlines() if line.startswith("|")]
    assert len(table) == 4
    assert {line.replace("\\|", "").count("|") for line in table} == {table[0].count("|")}
    console = Console(width=400, record=True)
    console.print(result.to_rich())
    assert "[red]" in console.export_text()


def test_escape_leaves_plain_text_alone() -> None:
    assert escape("lr=0.0003 (5cf3b2), PPO-1 ünï") == "lr=0.0003 (5cf3b2), PPO-1 ünï"
    assert escape("a\u202eb\x1b[0m\\") == "a b \\[0m\\\\"


def test_a_comparison_is_plain_json_and_rows(make_runs: Any) -> None:
    result = compare(_grid(make_runs, {"0.1": [1.0, 2.0], "0.2": [2.0, 4.0]}))
    restored = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert restored["groups"][0]["low"] is None and restored["groups"][0]["n_seeds"] == 2
    assert result.rows()[0]["95 % interval"] == "–"
    assert "1 more groups are in comparison.csv" in result.to_markdown(max_groups=1)
