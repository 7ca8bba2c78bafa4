"""Groups of seeds as tables: interquartile means with intervals, ranks, and every pair tested against the other."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from itertools import combinations
from typing import Final

import numpy as np
import pandas as pd

from drl_ray_tracking import names
from drl_ray_tracking.analysis.comparison import LEAST_SEEDS, PAIRS, BestRun, no_pairs
from drl_ray_tracking.analysis.effects import hedges_g, welch_p_value
from drl_ray_tracking.analysis.inputs import FloatArray
from drl_ray_tracking.analysis.intervals import (
    interquartile_mean,
    probability_of_improvement,
    stratified_bootstrap_interval,
)
from drl_ray_tracking.analysis.multiplicity import benjamini_hochberg
from drl_ray_tracking.analysis.runset import Mode
from drl_ray_tracking.analysis.scores import Scores
from drl_ray_tracking.analysis.variance import VarianceComponents, variance_components
from drl_ray_tracking.errors import DataError

N_RESAMPLES: Final = 5000
MOST_PAIRED: Final = 30  # groups, best ranked first: 435 pairs say enough


def groups_frame(
    values: pd.DataFrame,
    scores: Scores,
    labels: Mapping[Hashable, str],
    mode: Mode,
    confidence: float,
    entropy: int,
) -> pd.DataFrame:
    """Returns the table `Comparison.groups`."""
    rows = []
    for group, part in values.groupby("group"):
        score_RT, seeds = scores.of[str(group)], scores.seeds(str(group))
        best = best_run(part, labels, mode)
        low, high = _interval(score_RT, confidence, [entropy, names.hash_text(str(group))])
        rows.append(
            {
                "group": str(group),
                "label": labels[group],
                "n_seeds": len(seeds),
                "n_runs": len(part),
                "mean": float(seeds.mean()),
                "iqm": interquartile_mean(score_RT),
                "low": low,
                "high": high,
                "sd": float(seeds.std(ddof=1)) if len(seeds) > 1 else math.nan,
                "best_run_id": best.run_id,
                "best_run": best.name,
                "best_value": best.value,
            }
        )
    frame = pd.DataFrame(rows).set_index("group")
    rankable = frame["n_seeds"] >= LEAST_SEEDS
    order = frame["iqm"].where(rankable) * (-1.0 if mode == "max" else 1.0)
    # One ranked group would be first of one: a rank needs another group to be better than.
    rank = order.rank(method="min") if rankable.sum() > 1 else pd.Series(math.nan, index=frame.index)
    frame.insert(1, "rank", rank.astype("Int64"))
    return frame.assign(order=order).sort_values(["order", "label"], na_position="last").drop(columns="order")


def best_run(values: pd.DataFrame, labels: Mapping[Hashable, str], mode: Mode) -> BestRun:
    """Returns the run with the best value of all."""
    column = values["value"]
    run_id = str(column.idxmax() if mode == "max" else column.idxmin())
    row = values.loc[run_id].to_dict()
    return BestRun(run_id, str(row["name"]), float(row["value"]), int(row["step"]), labels[row["group"]])


def pairs_frame(groups: pd.DataFrame, scores: Scores, mode: Mode) -> pd.DataFrame:
    """Returns the table `Comparison.pairs`: of the best `MOST_PAIRED` ranked groups."""
    ranked = [str(group) for group in groups.index[groups["rank"].notna()][:MOST_PAIRED]]
    sign = 1.0 if mode == "max" else -1.0
    rows = []
    for first, second in combinations(ranked, 2):
        x, y = sign * scores.seeds(first), sign * scores.seeds(second)
        try:
            effect, p_value = hedges_g(x, y), welch_p_value(x, y)
        except DataError:  # no spread within the groups: nothing can be tested
            effect = p_value = math.nan
        better = probability_of_improvement(sign * scores.of[first], sign * scores.of[second])
        rows.append((first, second, better, effect, p_value, math.nan))
    if not rows:
        return no_pairs()
    frame = pd.DataFrame(rows, columns=list(PAIRS))
    tested = frame["p_value"].notna()
    if tested.any():
        frame.loc[tested, "p_adjusted"] = benjamini_hochberg(frame.loc[tested, "p_value"].to_numpy()).adjusted
    return frame


def variance_of(scores: Scores) -> VarianceComponents | None:
    """Returns how the scores' variance splits; None where there are too few groups or seeds to tell."""
    try:
        return variance_components(list(scores.of.values()))
    except DataError:
        return None


def _interval(score_RT: FloatArray, confidence: float, entropy: list[int]) -> tuple[float, float]:
    if len(score_RT) < LEAST_SEEDS:
        return math.nan, math.nan
    # A stream for each group: its interval does not depend on which other groups are compared.
    return stratified_bootstrap_interval(
        score_RT,
        interquartile_mean,
        rng=np.random.default_rng(entropy),
        n_resamples=N_RESAMPLES,
        confidence=confidence,
    )
