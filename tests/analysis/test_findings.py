"""The sentences of a comparison are true: of ties, of budgets, of the pairs that were tested, of labels cut short."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from drl_ray_tracking.analysis.compare import compare
from drl_ray_tracking.analysis.ranking import MOST_PAIRED


def seeds(values: dict[str, list[float]]) -> list[dict[str, Any]]:
    return [
        {"config_hash": name, "seed": str(seed), "value": value}
        for name, own in values.items()
        for seed, value in enumerate(own)
    ]


def test_the_common_budget_is_of_the_runs_that_are_compared(make_runs: Any) -> None:
    history = [(100, 3.0), (1000, 1.0)]
    compared = [{"history": history, "param.lr": "1"} for _ in range(3)]
    short = {"history": [(10, float("nan"))], "param.lr": "1"}
    without = {"history": [(20, 2.0)], "param.lr": None}
    result = compare(make_runs([*compared, short, without]), at="budget", by="lr")
    assert result.budget == 1000 and len(result.values) == 3
    assert any("1 run without any defined point" in note for note in result.notes)
    assert any("1 run without a value of lr" in note for note in result.notes)


def test_values_at_their_best_do_not_say_who_trained_less(make_runs: Any) -> None:
    runs = make_runs([{"history": [(100, 3.0), (300, 1.0)]}, {"history": [(100, 1.0), (300, 3.0)]}])
    (note,) = [note for note in compare(runs, at="best").notes if "env steps" in note]
    assert note == "The values were taken at different env steps, 100 to 300: each run's where it was at its best."
    cut = make_runs([{"history": [(100, 3.0), (300, 1.0)]}, {"history": [(100, 1.0)]}])
    assert any("some runs had less training" in note for note in compare(cut).notes)


def test_only_the_pairs_that_were_tested_are_spoken_of(make_runs: Any) -> None:
    rng = np.random.default_rng(0)
    groups = {f"h{number:02}": list(rng.normal(number, 0.1, 3)) for number in range(MOST_PAIRED + 3)}
    (said,) = [one for one in compare(make_runs(seeds(groups))).findings if " pairs of " in one]
    assert f"of 435 pairs of the best {MOST_PAIRED} of {MOST_PAIRED + 3} ranked groups are apart" in said


def test_equal_ranks_are_a_tie(make_runs: Any) -> None:
    result = compare(make_runs(seeds({"aaaaaa": [0.0, 1.0, 2.0], "bbbbbb": [0.0, 1.0, 2.0]})))
    assert result.groups["rank"].to_list() == [1, 1]
    assert result.findings[0].startswith("aaaaaa ties with bbbbbb: a seed of the first is better")
    apart = compare(make_runs(seeds({"aaaaaa": [0.0, 1.0, 2.0], "bbbbbb": [5.0, 6.0, 7.0]})))
    assert apart.findings[0].startswith("bbbbbb comes before aaaaaa")


@pytest.mark.parametrize("mode", ["max", "min"])
def test_no_seeds_are_needed_for_means_that_contradict_the_ranks(make_runs: Any, mode: Any) -> None:
    sign = 1.0 if mode == "max" else -1.0
    values = {"aaaaaa": [1.0, 1.0, 1.0, 1.0, -50.0], "bbbbbb": [0.0, 0.0, 0.0, 0.1, -0.1]}
    result = compare(make_runs(seeds({name: [sign * one for one in own] for name, own in values.items()})), mode=mode)
    assert result.groups.index[0] == "aaaaaa" and result.seeds_needed is None
    assert not any("would separate" in one for one in result.findings)
    assert result.findings[0].startswith("aaaaaa comes before bbbbbb")


@pytest.mark.parametrize("ends", [("1", "2"), ("1" + "B" * 30, "2" + "B" * 30)])
def test_labels_cut_short_stay_apart(make_runs: Any, ends: tuple[str, str]) -> None:
    long = "A" * 60
    rows = [{"value": float(number), "param.universe": long + end} for number, end in enumerate(ends)]
    labels = list(compare(make_runs(rows), by="universe").groups["label"])
    assert len(set(labels)) == 2 and all(len(label) <= len("universe=") + 44 for label in labels)


@pytest.mark.parametrize("scale", [1e80, 1e150])
def test_values_of_any_size_are_compared(make_runs: Any, scale: float) -> None:
    rng = np.random.default_rng(0)
    own = {name: list(rng.normal(center, 1.0, 4)) for name, center in (("aaaaaa", 0.0), ("bbbbbb", 3.0))}
    plain = compare(make_runs(seeds(own))).pairs
    huge = compare(make_runs(seeds({name: [scale * one for one in values] for name, values in own.items()}))).pairs
    assert huge["p_value"].to_list() == pytest.approx(plain["p_value"].to_list(), rel=1e-6)
    assert huge["hedges_g"].to_list() == pytest.approx(plain["hedges_g"].to_list(), rel=1e-6)
