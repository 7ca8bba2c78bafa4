"""What a comparison says in sentences: its findings, and what has to be known before they are believed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final

import pandas as pd

from drl_ray_tracking.analysis.comparison import LEAST_SEEDS, At, BestRun
from drl_ray_tracking.analysis.effects import seeds_to_separate
from drl_ray_tracking.analysis.ranking import MOST_PAIRED
from drl_ray_tracking.analysis.runset import Mode, RunSet
from drl_ray_tracking.analysis.variance import VarianceComponents

_NAMED: Final = 5
# Runs that differ in one of these saw other market data.
_WINDOW: Final = {
    "data_digest": "data digests",
    "env": "environments",
    "symbols": "symbol sets",
    "timeframe": "timeframes",
    "window_id": "data windows",
}
_SOURCES: Final = {
    "group": "what the groups differ in",
    "seed": "the seed",
    "window": "the market window",
    "group_window": "groups that suit some windows better",
    "residual": "the rest",
}


def counted(reason: str, run_ids: Sequence[str], runs: RunSet) -> str:
    """Returns which runs are left out for a reason, the first of them by name."""
    named = ", ".join(str(name) for name in runs.runs.loc[list(run_ids[:_NAMED]), "name"])
    more = f" and {len(run_ids) - _NAMED} more" if len(run_ids) > _NAMED else ""
    noun = "run" if len(run_ids) == 1 else "runs"
    return f"Left out: {len(run_ids)} {noun} {reason}: {named}{more}."


def seeds_between(groups: pd.DataFrame, mode: Mode) -> float | None:
    """Returns how many seeds a group would separate the first two ranked groups.

    None where nothing is ranked, and where the means, which such a test compares, contradict the rank by IQM.
    """
    ranked = groups[groups["rank"].notna()]
    if len(ranked) < 2:
        return None
    first, second = ranked.iloc[0], ranked.iloc[1]
    ahead = first["mean"] - second["mean"] if mode == "max" else second["mean"] - first["mean"]
    if ahead < 0.0 and first["rank"] != second["rank"]:
        return None
    return seeds_to_separate(first["mean"], first["sd"], second["mean"], second["sd"])


def ranking(groups: pd.DataFrame, pairs: pd.DataFrame, needed: float | None) -> Iterator[str]:
    """Yields the sentences about which group is better, or why that cannot be said."""
    if len(groups) == 1:
        yield f"One group, {_seeds(int(groups['n_seeds'].iloc[0]))}: nothing to rank it against."
        return
    few = groups[groups["n_seeds"] < LEAST_SEEDS]
    if len(few) == len(groups):
        counts = sorted(set(few["n_seeds"]))
        each = f"{_seeds(int(counts[0]))} each" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds a group"
        yield f"{each}: no ranking; at least {LEAST_SEEDS} are needed."
        return
    if len(few):
        labels = ", ".join(few["label"][:_NAMED]) + (f" and {len(few) - _NAMED} more" if len(few) > _NAMED else "")
        yield f"Not ranked, with fewer than {LEAST_SEEDS} seeds: {labels}."
    ranked = groups[groups["rank"].notna()]
    if len(ranked) < 2:
        return
    first, second, pair = ranked.iloc[0], ranked.iloc[1], pairs.iloc[0]
    overlap = first["low"] <= second["high"] and second["low"] <= first["high"]
    tie = first["rank"] == second["rank"]
    order = f"{first['label']} {'ties with' if tie else 'comes before'} {second['label']}"
    yield (
        f"{order}: a seed of the first is better than one of the second with "
        f"probability {pair['p_improvement']:.2f}; their intervals "
        f"{'overlap: not clearly apart' if overlap else 'are apart'}."
    )
    if overlap and needed is not None and math.isfinite(needed):
        yield (
            f"If the means and spreads seen were the true ones, about {needed:.0f} seeds a group would separate "
            "these two (two-sided Welch test, 5 %, power 0.9)."
        )
    if len(ranked) > 2:
        apart = int((pairs["p_adjusted"] <= 0.05).sum())
        which = (
            f"the best {MOST_PAIRED} of {len(ranked)} ranked groups" if len(ranked) > MOST_PAIRED else "ranked groups"
        )
        yield (
            f"{apart} of {len(pairs)} pairs of {which} are apart at a false discovery rate of 5 % (Welch test, "
            "Benjamini-Hochberg)."
        )


def sources_of_variance(variance: VarianceComponents | None) -> Iterator[str]:
    """Yields where the differences between scores come from."""
    shares = variance.shares() if variance is not None else {}
    if shares:
        parts = [f"{100 * share:.0f} % {_SOURCES[name]}" for name, share in shares.items()]
        yield f"The scores' variance is {', '.join(parts)} (random-effects estimates)."


def optimism(best: BestRun, n_runs: int, n_evaluations: int, at: At, mode: Mode) -> str:
    """Returns what the best single value is not."""
    over = f"{n_evaluations} evaluations of {n_runs} trials" if at == "best" else f"{n_runs} trials"
    if n_runs == 1 and n_evaluations == 1:
        return f"The only value is {best.value:.4g} ({best.name})."
    return (
        f"The best single value, {best.value:.4g} ({best.name}), is the best of {over}: it was chosen for being "
        f"{'high' if mode == 'max' else 'low'}, so it is optimistic, and the more were looked at, the more so. It is "
        "no estimate of what this run does on new data."
    )


def cautions(
    runs: RunSet, values: pd.DataFrame, groups: pd.DataFrame, by: str, windows: Sequence[str], at: At
) -> Iterator[str]:
    """Yields what makes the values less comparable than they look."""
    used = runs.runs.loc[values.index]
    if windows:
        yield (
            f"Every seed was scored on the same {len(windows)} data windows: they are the columns over which a group's "
            "IQM and interval are taken."
        )
    for column, plural in _WINDOW.items():
        known = used[column].dropna().unique() if column in used else ()
        told_apart = bool(windows) and (used.groupby("window_id")[column].nunique() <= 1).all()
        if len(known) > 1 and not told_apart:
            shown = ", ".join(str(value) for value in known[:_NAMED]) + (", ..." if len(known) > _NAMED else "")
            yield f"Not comparable: the runs come from {len(known)} {plural} ({shown}); on other data, other values."
    steps = values["step"]
    if steps.nunique() > 1:
        span = f"{steps.min():,} to {steps.max():,}"
        why = "each run's where it was at its best" if at == "best" else "some runs had less training"
        yield f"The values were taken at different env steps, {span}: {why}."
    unseeded = int(values["seed"].isna().sum())
    if unseeded:
        yield f"{unseeded} of {len(values)} runs recorded no seed: each counts as one."
    repeated = int((groups["n_runs"] - groups["n_seeds"] * max(1, len(windows))).sum())
    if repeated:
        yield (
            f"{repeated} runs repeat a seed of their group: runs of one seed are averaged, so that n counts seeds."
            + (" They may differ in other parameters." if by != "config_hash" else "")
        )


def reading_notes(runs: RunSet) -> Iterator[str]:
    """Yields what could not be read."""
    yield from (f"{note[0].upper()}{note[1:]}." for note in runs.notes)
    named = runs.runs["name"].to_dict()
    for item in runs.unreadable[:_NAMED]:
        yield f"Run {named.get(item.run_id, item.run_id)} could not be read in full: {item.reason}."
    if len(runs.unreadable) > _NAMED:
        yield f"{len(runs.unreadable) - _NAMED} more runs could not be read in full."


def _seeds(count: int) -> str:
    return f"{count} seed" if count == 1 else f"{count} seeds"
