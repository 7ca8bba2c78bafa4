"""Many candidates against a benchmark: arch's own answers, noise accepted rarely, an edge found, no arch one error."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from arch.bootstrap import SPA, StepM

from drl_ray_tracking.analysis.superior import superior_candidates, superior_predictive_ability
from drl_ray_tracking.errors import ConfigurationError, DataError


def drawn(edge: float, seed: int = 0, bars: int = 300, candidates: int = 12) -> np.ndarray:
    returns = np.random.default_rng(seed).normal(scale=0.01, size=(bars, candidates))
    returns[:, 3] += edge
    return returns


def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def test_it_is_what_arch_says_of_losses() -> None:
    returns, benchmark = drawn(0.001), np.full(300, 0.0002)
    theirs = SPA(-benchmark, -returns, reps=300, seed=rng())
    theirs.compute()
    ours = superior_predictive_ability(returns, benchmark, rng=rng(), n_resamples=300)
    assert [ours.lower, ours.consistent, ours.upper] == theirs.pvalues.to_list()
    assert ours.lower <= ours.consistent <= ours.upper
    stepwise = StepM(-benchmark, -returns, reps=300, seed=rng())
    stepwise.compute()
    assert np.flatnonzero(superior_candidates(returns, benchmark, rng=rng(), n_resamples=300)).tolist() == [
        int(column) for column in stepwise.superior_models
    ]


def test_noise_is_rarely_superior_and_an_edge_is_found() -> None:
    p = [
        superior_predictive_ability(drawn(0.0, seed), np.zeros(300), rng=rng(), n_resamples=100).consistent
        for seed in range(60)
    ]
    assert np.mean(np.array(p) < 0.05) <= 0.15, "nominal 5 %, of 60"
    edge = drawn(0.004)
    assert superior_predictive_ability(edge, np.zeros(300), rng=rng(), n_resamples=200).consistent < 0.01
    assert superior_candidates(edge, np.zeros(300), rng=rng(), n_resamples=200).nonzero()[0].tolist() == [3]


def test_a_candidate_that_is_the_benchmark_is_no_better() -> None:
    benchmark = drawn(0.0)[:, 0]
    same = np.column_stack([benchmark, benchmark])
    assert superior_predictive_ability(same, benchmark, rng=rng()).consistent == 1.0
    assert superior_candidates(same, benchmark, rng=rng()).tolist() == [False, False]
    mixed = np.column_stack([benchmark, benchmark + np.abs(drawn(0.0, 1)[:, 0])])
    assert superior_candidates(mixed, benchmark, rng=rng(), n_resamples=100).tolist() == [False, True]


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(DataError, match="must have the 300 bars of returns_TN but has 299"):
        superior_predictive_ability(drawn(0.0), np.zeros(299), rng=rng())
    with pytest.raises(DataError, match=r"numpy\.random\.Generator"):
        superior_predictive_ability(drawn(0.0), np.zeros(300), rng=3)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="level must lie strictly"):
        superior_candidates(drawn(0.0), np.zeros(300), rng=rng(), level=1.0)


def test_without_arch_one_error_says_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "arch.bootstrap", None)
    with pytest.raises(ConfigurationError, match=r"needs arch, which is not installed.*drl-ray-tracking\[arch\]"):
        superior_predictive_ability(drawn(0.0), np.zeros(300), rng=rng())


def test_a_candidate_that_earns_a_constant_more_is_better_and_one_that_earns_less_is_not() -> None:
    benchmark = drawn(0.0)[:, 0]
    shifted = np.column_stack([benchmark + 0.01, benchmark - 0.01, benchmark, drawn(0.0, 1)[:, 0]])
    assert superior_predictive_ability(shifted, benchmark, rng=rng(), n_resamples=50).consistent == 0.0
    assert superior_candidates(shifted, benchmark, rng=rng(), n_resamples=50).tolist() == [True, False, False, False]
    assert superior_predictive_ability(shifted[:, 1:3], benchmark, rng=rng()).consistent == 1.0
