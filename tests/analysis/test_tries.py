"""Which evaluations count as tries, which of them a value is of, and what their bars are."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from drl_ray_tracking import names
from drl_ray_tracking.analysis.compare import compare
from drl_ray_tracking.analysis.comparison import Comparison
from drl_ray_tracking.analysis.evaluations import evaluation_of, judged_bars
from drl_ray_tracking.analysis.runset import RunSet
from drl_ray_tracking.analysis.tries import Tries, tries_of
from drl_ray_tracking.analysis.verdict import judged
from drl_ray_tracking.errors import DataError
from drl_ray_tracking.promotion.evidence import evidence_of
from tests.analysis.kept import METRIC, evaluated, marked, run_set

MARKER = names.EVALUATION_MARKER
RNG = np.random.default_rng(3)
GOOD, BAD, MIDDLE = (0.01 * (RNG.normal(size=400) + edge) for edge in (0.3, -0.3, 0.0))


def verdict_of(runs: RunSet, **settings: object) -> tuple[Comparison, dict[str, float]]:
    done = judged(compare(runs, metric=METRIC, **settings), runs)  # type: ignore[arg-type]
    assert done.verdict is not None
    return done, {one.name: one.value for one in done.verdict.numbers}


def per_bar(returns: np.ndarray) -> float:
    return float(returns.mean() / returns.std(ddof=1))


# --- what is not known is not taken for nothing ---------------------------------------------------------------


def test_a_variance_nobody_knows_is_not_none() -> None:
    runs = run_set({"a": evaluated([GOOD])}, {"a": [5.0], **{f"r{n}": [1.0, 2.0] for n in range(20)}})
    runs.runs["window_id"] = "w"
    done, _ = verdict_of(runs)
    assert done.verdict is not None and done.verdict.accepted is None
    assert "41 evaluations were looked at, but only 1 of them has its bars in a return series" in done.verdict.text
    kpis = {"trading/trades": 9.0, "trading/sharpe_per_period": 0.3, "trading/bars": 400.0}
    kpis |= {"trading/skewness": 0.0, "trading/kurtosis": 3.0, "trading/max_drawdown": 0.1}
    tries = tries_of(runs, METRIC, "w")
    promoted = evidence_of(kpis, None, tries)
    assert promoted.deflated_sharpe is None and "41 evaluations were looked at" in promoted.missing["deflated_sharpe"]
    assert evidence_of(kpis, None, tries, looks=1).deflated_sharpe == pytest.approx(1.0, abs=1e-6)


def test_one_look_needs_no_variance() -> None:
    done, numbers = verdict_of(run_set({"a": evaluated([GOOD])}, {"a": [5.0]}, {"a": "w"}))
    assert done.verdict is not None and done.verdict.accepted is True
    assert numbers["luck"] == 0.0 and numbers["dsr"] == numbers["psr"]


# --- the bars are those of the KPIs ---------------------------------------------------------------------------


def test_missing_marks_and_ruin_are_what_they_are_in_the_kpis() -> None:
    gaps = np.concatenate([[1.0], np.cumprod(1.0 + MIDDLE)])
    gaps[1:][MIDDLE < -0.012] = np.nan
    (column,) = tries_of(run_set({"a": marked([gaps])}, {"a": [1.0]}, {"a": "w"}), METRIC, "w").returns_TN.T
    assert len(column) == 400 - np.isnan(gaps).sum()
    assert np.prod(1.0 + column) == pytest.approx(gaps[~np.isnan(gaps)][-1])
    fallen = np.concatenate([np.linspace(1.0, -0.01, 50), -0.01 * np.cumprod(1.0 + np.abs(GOOD[:351]))])
    runs = run_set({"a": marked([fallen]), "b": evaluated([GOOD])}, {"a": [1.0], "b": [0.0]}, {"a": "w", "b": "w"})
    tries = tries_of(runs, METRIC, "w")
    assert tries.returns_TN.shape == (400, 2), "a ruined one keeps the length of its window"
    assert tries.returns_TN[48, 0] == -1.0 and not tries.returns_TN[49:, 0].any()
    assert len(tries.chosen("a", 100)) == 49 and len(tries.chosen("b", 100)) == 400


# --- the evaluation is the one the value is of ------------------------------------------------------------------


def test_with_parallel_evaluation_a_value_is_of_the_weights_before() -> None:
    series = evaluated([MIDDLE, GOOD, BAD])
    series["step"] -= 100
    runs = run_set({"a": series}, {"a": [per_bar(one) for one in (MIDDLE, GOOD, BAD)]}, {"a": "w"})
    marks = pd.DataFrame(
        [
            {"run_id": "a", "metric": MARKER, "step": step, "value": step - 100.0, "time_ms": 0}
            for step in (100, 200, 300)
        ]
    )
    both = (METRIC, MARKER)
    runs = dataclasses.replace(runs, histories=pd.concat([runs.histories, marks]), metrics=both, loaded=frozenset(both))
    done, numbers = verdict_of(runs, at="best")
    assert done.best_run.step == 200 and numbers["sharpe"] == pytest.approx(per_bar(GOOD))
    assert set(evaluation_of(runs, METRIC, "a", 200)["iteration"]) == {2}


def test_no_other_evaluation_is_taken_for_one_that_is_not_whole() -> None:
    series = {"a": evaluated([MIDDLE, GOOD[:300]]), "b": evaluated([MIDDLE, BAD])}
    runs = run_set(series, {"a": [0.0, 9.0], "b": [0.0, 0.0]}, {"a": "w", "b": "w"})
    done, _ = verdict_of(runs)
    assert done.verdict is not None and done.verdict.accepted is None
    assert "at 200 env steps has 300 bars where most on its window have 400" in done.verdict.text
    gone = {**series, "a": evaluated([MIDDLE])}
    done, _ = verdict_of(run_set(gone, {"a": [0.0, 9.0], "b": [0.0, 0.0]}, {"a": "w", "b": "w"}))
    assert done.verdict is not None and done.verdict.accepted is None
    assert "no return series of its evaluation at 200 env steps: it has one at 100" in done.verdict.text


def test_of_two_lengths_equally_frequent_the_longer_is_the_window() -> None:
    tries = tries_of(run_set({"a": evaluated([MIDDLE[:40], GOOD])}, {"a": [0.0, 9.0]}, {"a": "w"}), METRIC, "w")
    assert tries.returns_TN.shape == (400, 1)
    assert tries.left_out == (("a", 100, 40),)


# --- a bar counts once --------------------------------------------------------------------------------------------


def shared(first: np.ndarray, second: np.ndarray) -> pd.DataFrame:
    one, other = evaluated([first]).assign(agent="a0"), evaluated([second]).assign(agent="a1", episode=1)
    return pd.concat([one, other], ignore_index=True)


def test_of_several_agents_the_one_is_judged_that_the_metric_names() -> None:
    runs = run_set({"a": shared(GOOD, BAD)}, {"a": [1.0]}, {"a": "w"})
    tries = tries_of(runs, METRIC, "w")
    with pytest.raises(DataError, match=r"2 agents on one market \(a0, a1\)"):
        tries.chosen("a", 100)
    series = runs.series("a")
    for metric in ("eval/agent/a1/trading/sharpe", "evaluation/env_runners/agent/a1/trading/sharpe"):
        assert set(judged_bars(series, metric)["agent"]) == {"a1"}
    with pytest.raises(DataError, match="such as eval/agent/a0/trading/sharpe"):
        judged_bars(series, "eval/module/a1/trading/sharpe")


@pytest.mark.parametrize("prefix", ["eval", "evaluation/env_runners"])
def test_of_several_symbols_the_one_is_judged_that_the_metric_names(prefix: str) -> None:
    one, other = evaluated([GOOD]).assign(symbol="BTC/USD"), evaluated([BAD]).assign(symbol="ETH/USD", episode=1)
    both = pd.concat([one, other], ignore_index=True)
    assert set(judged_bars(both, f"{prefix}/trading/by_symbol/ETH-USD/sharpe")["symbol"]) == {"ETH/USD"}
    assert len(judged_bars(both, f"{prefix}/trading/sharpe")) == len(both)


def test_a_pass_that_repeats_another_adds_no_bars() -> None:
    once = evaluated([GOOD, BAD])
    passes = pd.concat([once.assign(episode=number) for number in range(10)], ignore_index=True)
    assert tries_of(run_set({"a": passes}, {"a": [1.0, 1.0]}, {"a": "w"}), METRIC, "w").returns_TN.shape == (400, 2)
    other = pd.concat([once, once.assign(episode=1, timestamp=once["timestamp"] + 1e6)], ignore_index=True)
    assert tries_of(run_set({"a": other}, {"a": [1.0, 1.0]}, {"a": "w"}), METRIC, "w").returns_TN.shape == (800, 2)


# --- runs nobody gave a window id ------------------------------------------------------------------------------


def untagged() -> RunSet:
    series = {"a": evaluated([GOOD, MIDDLE]), "b": evaluated([BAD, MIDDLE]), "elsewhere": evaluated([BAD])}
    series["elsewhere"]["timestamp"] += 1e9
    return run_set(series, {"a": [9.0, 9.0], "b": [0.0, 0.0], "elsewhere": [0.0], "lost": [0.0]})


def test_without_a_window_id_bars_are_known_by_their_times() -> None:
    runs = untagged()
    tries = tries_of(runs, METRIC, "", "a")
    assert {run for run, _ in tries.keys} == {"a", "b"}
    assert tries.looked_at == 5, "a run without a series may have been on the same bars"
    done, numbers = verdict_of(runs, at="best")
    assert done.verdict is not None and done.verdict.accepted is not None
    assert (numbers["candidates"], numbers["bars"]) == (5, 400)


def test_bars_that_cannot_be_told_are_said_to_be() -> None:
    runs = untagged()
    for run_id in ("a", "b"):
        runs.source._series[run_id]["timestamp"] = np.nan  # type: ignore[union-attr]
    done, _ = verdict_of(runs, at="best")
    assert done.verdict is not None and done.verdict.accepted is None
    assert "no tag `drl.window_id`, and its series has no times" in done.verdict.text


def test_overfitting_is_worked_out_once() -> None:
    tries = Tries(RNG.normal(size=(64, 3)), (("a", 1), ("a", 2), ("a", 3)), 3)
    first = tries.overfitting
    assert tries.overfitting is first
