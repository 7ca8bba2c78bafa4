"""The verdict: noise is accepted hardly ever, whatever was looked at; an edge is; and what lacks data is said to."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

import numpy as np
import pytest

from drl_ray_tracking.analysis.compare import compare
from drl_ray_tracking.analysis.overfitting import probability_of_backtest_overfitting
from drl_ray_tracking.analysis.runset import RunSet
from drl_ray_tracking.analysis.selection import deflated_sharpe_ratio
from drl_ray_tracking.analysis.tries import tries_of
from drl_ray_tracking.analysis.verdict import ENOUGH, Evidence, evidence, judged
from drl_ray_tracking.errors import DataError
from tests.analysis.kept import METRIC, Kept, evaluated, run_set
from tests.analysis.noise import Search, annualised

SEARCHES = 1000


def found(search: Search, rng: np.random.Generator) -> tuple[float, Callable[[int], float], Callable[[], Evidence]]:
    """One search: the best's annualised Sharpe ratio, its deflated one for an N, and all of its evidence."""
    returns, variance = search.run(rng)
    sharpe = annualised(returns) / np.sqrt(252)
    shape = (returns - returns.mean()) / returns.std()
    moments = float(np.mean(shape**3)), float(np.mean(shape**4))
    return (
        annualised(returns),
        lambda n: deflated_sharpe_ratio(sharpe, len(returns), *moments, n, variance),
        lambda: evidence(returns, search.candidates, variance),
    )


@pytest.mark.parametrize("alike", [0.0, 0.9])
def test_noise_is_accepted_in_at_most_five_of_a_hundred_searches(alike: float) -> None:
    rng, search = np.random.default_rng(7), Search(alike=alike)
    accepted, naively, best = 0, 0, []
    for _ in range(SEARCHES):
        value, dsr, all_of_it = found(search, rng)
        best.append(value)
        naively += dsr(search.trials) >= ENOUGH
        # The bootstrap is dear, and asked only where the first test is passed: both are needed.
        accepted += dsr(search.candidates) >= ENOUGH and all_of_it().accepted
    print(f"alike {alike}: accepted {accepted / SEARCHES:.1%}, with N = trials of one sweep {naively / SEARCHES:.1%}")
    assert accepted <= 0.05 * SEARCHES
    assert np.mean(best) > 1.5, "the best of noise looks brilliant"
    if alike == 0.0:
        assert naively > 0.3 * SEARCHES, "counting trials instead of candidates would be fooled"


@pytest.mark.parametrize(("yearly", "least"), [(3.0, 0.9), (2.0, 0.3)])
def test_an_edge_is_accepted(yearly: float, least: float) -> None:
    rng, searches = np.random.default_rng(3), 100
    search = Search(sweeps=1, bars=4 * 252, edge=yearly / np.sqrt(252))
    accepted = sum(found(search, rng)[2]().accepted for _ in range(searches))
    print(f"true Sharpe ratio {yearly}, 500 candidates, four years of bars: accepted {accepted / searches:.0%}")
    assert accepted >= least * searches


def test_the_probability_of_overfitting_averages_one_half_under_noise() -> None:
    rng = np.random.default_rng(11)
    pbo = [probability_of_backtest_overfitting(rng.normal(size=(256, 20)), 8).pbo for _ in range(200)]
    assert np.mean(pbo) == pytest.approx(0.5, abs=0.05)


# --- from runs ---------------------------------------------------------------------------------------------


def example(edge: float) -> RunSet:
    rng = np.random.default_rng(5)
    returns = {run: 0.01 * (rng.normal(size=(3, 400)) + edge) for run in ("a", "b", "c", "elsewhere")}
    windows = {"a": "w", "b": "w", "c": "w", "elsewhere": "other"}
    values = {run: [float(row.mean() / row.std(ddof=1)) for row in own] for run, own in returns.items()}
    return run_set({run: evaluated(own) for run, own in returns.items()}, values, windows)


def test_every_evaluation_on_the_same_bars_is_a_try_and_others_are_not() -> None:
    runs = example(0.0)
    tries = tries_of(runs, METRIC, "w")
    assert (tries.looked_at, tries.returns_TN.shape) == (9, (400, 9))
    assert set(tries.keys) == {(run, 100 * step) for run in "abc" for step in (1, 2, 3)}
    one = runs.series("b").query("step == 200")["equity"].pct_change().dropna().to_numpy()
    np.testing.assert_allclose(tries.chosen("b", 250), one, rtol=1e-12, atol=1e-15)
    with pytest.raises(DataError, match="no return series"):
        tries.chosen("b", 50)


@pytest.mark.parametrize(
    ("digest", "bars", "looked_at"),
    [("d", "0.0 100.0", 12), ("d", "1.0 101.0", 12), ("d", "100.0 200.0", 9), ("e", "0.0 100.0", 9), (None, None, 9)],
)
def test_windows_that_share_bars_are_tries_whatever_they_are_called(
    digest: str | None, bars: str | None, looked_at: int
) -> None:
    runs = example(0.0)
    runs.runs["data_digest"], runs.runs["window_bars"] = "d", "0.0 100.0"
    runs.runs.loc["elsewhere", ["data_digest", "window_bars"]] = [digest, bars]
    tries = tries_of(runs, METRIC, "w")
    assert tries.looked_at == looked_at
    assert tries.returns_TN.shape == (400, 9), "other bars do not stand beside these"


def test_the_text_says_accepted_and_every_number_of_it_is_in_the_table() -> None:
    for edge, accepted in ((0.0, False), (0.5, True)):
        runs = example(edge)
        done = judged(compare(runs, metric=METRIC), runs)
        assert done.verdict is not None
        assert done.verdict.accepted is accepted
        assert done.verdict.text.startswith("Accepted" if accepted else "Not accepted")
        numbers = {one.name: one.value for one in done.verdict.numbers}
        assert numbers["candidates"] >= 9
        assert numbers["test_evaluations"] == 2
        assert (numbers["low"] > 0) is accepted
        shown = {one.shown.removesuffix(" %") for one in done.verdict.numbers}
        said = re.findall(r"[−\d][\d.,]*\d|\d", done.verdict.text.replace("run a (abc)", ""))
        assert len(said) >= 10 and set(said) <= shown
        page = done.to_markdown()
        assert all(f"| {one.shown} |" in page for one in done.verdict.numbers)
        assert done.to_dict()["verdict"]["text"] == done.verdict.text


def test_names_with_braces_are_only_text() -> None:
    runs = example(0.5)
    runs.runs["name"] = ["{candidates} {0}", "b {", "}", "d"]
    verdict = judged(compare(runs, metric=METRIC), runs).verdict
    assert verdict is not None and verdict.text.startswith("Accepted: {candidates} {0} (abc).")


def test_where_looks_at_test_windows_are_not_known_none_are_claimed() -> None:
    runs = dataclasses.replace(example(0.0), test_evaluations=None)
    verdict = judged(compare(runs, metric=METRIC), runs).verdict
    assert verdict is not None and "how often test windows were looked at is not known here" in verdict.text


def test_runs_of_other_sweeps_count_as_tries() -> None:
    runs = example(0.0)
    of_one = dataclasses.replace(runs, runs=runs.runs.loc[["a"]])
    best = compare(of_one, metric=METRIC)
    alone = {one.name: one.value for one in judged(best, of_one).verdict.numbers}  # type: ignore[union-attr]
    pooled = {one.name: one.value for one in judged(best, of_one, runs).verdict.numbers}  # type: ignore[union-attr]
    assert (alone["candidates"], pooled["candidates"]) == (3, 9)
    assert pooled["luck"] > alone["luck"]


def test_a_run_without_a_series_is_a_try_and_its_lack_is_said() -> None:
    runs = example(0.5)
    del runs.source._series["c"]  # type: ignore[union-attr]
    best = compare(runs, metric=METRIC)
    tries = tries_of(runs, METRIC, "w")
    assert tries.looked_at == 9
    if best.best_run.run_id == "c":
        pytest.fail("the example's best run must have its series")
    done = judged(best, runs)
    assert done.verdict is not None
    assert "Trials without a return series: 1;" in done.verdict.text
    assert "Run c kept no evaluation series." in done.notes


@pytest.mark.parametrize("what", ["no series", "never traded"])
def test_what_cannot_be_judged_is_said_so(what: str) -> None:
    runs = example(0.5)
    flat = {run: evaluated(np.zeros((3, 400))) for run in runs.runs.index}
    source = Kept({} if what == "no series" else flat)
    runs = dataclasses.replace(runs, source=source)
    verdict = judged(compare(runs, metric=METRIC), runs).verdict
    assert verdict is not None
    assert verdict.accepted is None
    assert verdict.text.startswith("Cannot be judged: run ")
    assert verdict.text.endswith("Its luck and its skill cannot be told apart.")
    assert ("no return series" if what == "no series" else "do not move") in verdict.text
