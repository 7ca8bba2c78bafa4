"""Importance finds the parameter that matters, on medians over seeds, and refuses what nobody can tell."""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import pytest

from drl_ray_tracking.analysis.compare import compare
from drl_ray_tracking.analysis.importance import importance, medians
from drl_ray_tracking.analysis.page.seed_charts import parallel_coordinates
from drl_ray_tracking.analysis.runset import RunSet
from drl_ray_tracking.errors import ConfigurationError, DataError


def searched(make_runs: Any, configurations: int, *, outlier: bool = False) -> RunSet:
    rng = np.random.default_rng(3)
    rows = []
    for number in range(configurations):
        lr, kind = 10.0 ** rng.uniform(-4, -1), ("relu", "tanh")[number % 2]
        rows += [
            {
                "config_hash": f"h{number:02}",
                "seed": str(seed),
                "value": 1e9 if outlier and number == 0 and seed == 0 else np.log10(lr) + 0.01 * rng.normal(),
                "param.lr": str(lr),
                "param.model/activation": kind,
                "param.seed": str(seed),
                "param.gamma": "0.9",
            }
            for seed in range(3)
        ]
    return make_runs(rows)


def test_the_parameter_that_matters_is_found_and_shares_sum_to_one(make_runs: Any) -> None:
    runs = searched(make_runs, 12)
    found = importance(compare(runs), runs)
    assert list(found.shares) == ["lr", "model/activation"] and found.configurations == 12
    assert found.shares["lr"] > 0.8 and sum(found.shares.values()) == pytest.approx(1.0)
    assert importance(compare(runs), runs).shares == found.shares, "it repeats"


def test_a_lucky_seed_is_no_effect(make_runs: Any) -> None:
    runs = searched(make_runs, 12, outlier=True)
    assert medians(compare(runs), runs)["value"].max() < 0.0
    assert importance(compare(runs), runs).shares["lr"] > 0.8


def test_groups_by_a_parameter_change_nothing(make_runs: Any) -> None:
    runs = searched(make_runs, 10)
    assert importance(compare(runs, by="model/activation"), runs) == importance(compare(runs), runs)


def test_too_little_to_tell_is_said(make_runs: Any) -> None:
    runs = searched(make_runs, 7)
    with pytest.raises(DataError, match="at least 8 configurations but there are 7"):
        importance(compare(runs), runs)
    alike = make_runs([{"config_hash": f"h{number}", "value": 1.0, "param.lr": str(number)} for number in range(9)])
    with pytest.raises(DataError, match="1 differs between"):
        importance(compare(alike), alike)
    flat = make_runs(
        [{"config_hash": f"h{n}", "value": 1.0, "param.lr": str(n), "param.b": str(n % 2)} for n in range(9)]
    )
    with pytest.raises(DataError, match="the same median"):
        importance(compare(flat), flat)


def test_without_optuna_one_error_says_what_installs_it(make_runs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    runs = searched(make_runs, 8)
    with pytest.raises(ConfigurationError, match=r"needs optuna, .*drl-ray-tracking\[importance\]"):
        importance(compare(runs), runs)


@pytest.mark.parametrize("odd", ["inf", "-inf", "1e300"])
def test_a_parameter_without_a_scale_is_a_choice(make_runs: Any, odd: str) -> None:
    rng = np.random.default_rng(3)
    clips = [(odd, "0.5")[number % 2] for number in range(10)]
    runs = make_runs(
        [
            {"config_hash": f"h{n:02}", "value": float(n + rng.normal()), "param.lr": str(n), "param.grad_clip": clip}
            for n, clip in enumerate(clips)
        ]
    )
    comparison = compare(runs)
    assert set(importance(comparison, runs).shares) == {"lr", "grad_clip"}
    assert json.dumps(parallel_coordinates(comparison, runs).data, allow_nan=False)
