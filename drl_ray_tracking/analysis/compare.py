"""Compares groups of runs on one metric: seeds replicate, small samples are said to be small, nothing is hidden.

A row of a group is a seed. Neither episodes nor iterations of one seed are independent, so they never are rows;
several runs of one seed (other windows, other parameters) are averaged into its row.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import pandas as pd

from drl_ray_tracking import names
from drl_ray_tracking.analysis.effects import seeds_to_separate
from drl_ray_tracking.analysis.inputs import FloatArray, generator
from drl_ray_tracking.analysis.intervals import (
    interquartile_mean,
    probability_of_improvement,
    stratified_bootstrap_interval,
)
from drl_ray_tracking.analysis.labels import group_labels
from drl_ray_tracking.analysis.runset import STATUSES, Mode, RunSet, check_mode
from drl_ray_tracking.errors import ConfigurationError, DataError, TrackingError

if TYPE_CHECKING:
    from rich.table import Table

At = Literal["last", "best"]

SEED: Final = 20260101  # of a comparison nobody gave a generator, so that it repeats
N_RESAMPLES: Final = 5000
LEAST_SEEDS: Final = 3  # to rank: two seeds have a range, but no spread to speak of
_NAMED: Final = 5
# Runs that differ in one of these saw other market data.
_WINDOW: Final = {
    "data_digest": "data digests",
    "env": "environments",
    "symbols": "symbol sets",
    "timeframe": "timeframes",
    "window_id": "data windows",
}


@dataclass(frozen=True)
class BestRun:
    """The run with the best value of all: a maximum over every run looked at, and optimistic by that."""

    run_id: str
    name: str
    value: float
    step: int
    group: str


@dataclass(frozen=True, eq=False)
class Comparison:
    """Groups of seeds compared on one metric.

    Attributes:
        metric: MLflow name.
        mode: whether higher (`max`) or lower (`min`) is better.
        by: the column of `RunSet.runs` that makes the groups.
        at: whether a run's value is its `last` or its `best`.
        confidence: of the intervals.
        groups: index `group`; columns `label`, `rank` (missing: not ranked), `n_seeds`, `n_runs`, `mean`, `iqm`,
            `low`, `high` (bootstrap interval of the IQM, missing below three seeds), `sd` (missing below two),
            `best_run_id`, `best_run`, `best_value`. Ranked groups first, best first, then by label.
        values: index `run_id` of the runs compared; columns `name`, `group`, `seed`, `value`, `step` (env steps).
        n_given: runs that were given, compared or not.
        n_evaluations: evaluations the choice of the best value looked at.
        best_run: of the runs compared.
        findings: what the numbers say, in sentences.
        notes: what a reader has to know before believing them, in sentences.
    """

    metric: str
    mode: Mode
    by: str
    at: At
    confidence: float
    groups: pd.DataFrame
    values: pd.DataFrame
    n_given: int
    n_evaluations: int
    best_run: BestRun
    findings: tuple[str, ...]
    notes: tuple[str, ...]

    def rows(self) -> list[dict[str, str]]:
        """Returns the groups as text cells, one mapping of column title to cell a group, in order."""
        from drl_ray_tracking.analysis.tables import group_rows

        return group_rows(self)

    def to_markdown(self, max_groups: int | None = None) -> str:
        """Returns a Markdown page; whatever came from a user is escaped.

        Args:
            max_groups: rows of the table; None for all.
        """
        from drl_ray_tracking.analysis.tables import markdown_page

        return markdown_page(self, max_groups)

    def to_rich(self) -> Table:
        """Returns the groups as a table for a terminal, findings and notes below."""
        from drl_ray_tracking.analysis.tables import terminal_table

        return terminal_table(self)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON: missing values are None."""
        best = self.best_run
        return {
            "metric": self.metric,
            "mode": self.mode,
            "by": self.by,
            "at": self.at,
            "confidence": self.confidence,
            "groups": _records(self.groups),
            "values": _records(self.values),
            "n_given": self.n_given,
            "n_evaluations": self.n_evaluations,
            "best_run": {"run_id": best.run_id, "name": best.name, "value": best.value, "step": best.step},
            "findings": list(self.findings),
            "notes": list(self.notes),
        }


def compare(
    runs: RunSet,
    *,
    metric: str = names.DEFAULT_METRIC,
    mode: Mode = "max",
    by: str = "config_hash",
    at: At = "last",
    confidence: float = 0.95,
    rng: np.random.Generator | None = None,
    statuses: Sequence[str] = ("FINISHED",),
) -> Comparison:
    """Compares groups of runs on one metric.

    Args:
        runs: what `load_runs` returned.
        metric: MLflow name or Tune path.
        mode: `max` where higher is better, `min` where lower is.
        by: what makes a group: `config_hash`, or a column of `runs.runs`, or a parameter's or tag's name.
        at: a run's `last` value, or its `best` over all evaluations (which is optimistic).
        confidence: of the bootstrap interval of the interquartile mean, inside (0, 1).
        rng: randomness of the bootstrap; None for a generator seeded with `SEED`, so that a comparison repeats.
        statuses: of the runs compared; the others are counted and named in the notes.

    Raises:
        ConfigurationError: a setting is not allowed; lists every problem at once.
        DataError: no run has the metric, or none that has it may be compared.
    """
    column = _checked_settings(runs, mode, by, at, confidence, statuses)
    entropy = SEED if rng is None else int(generator(rng).integers(2**63))
    name = runs.resolve(metric)
    runs = runs.with_metrics(name)
    points = runs.final(name) if at == "last" else runs.best(name, mode)
    table = runs.runs[["name", "status", "seed"]].assign(group=runs.runs[column], **points)
    left_out = dict(_left_out(table, name, column, statuses))
    used = table[~table.index.isin([run_id for ids in left_out.values() for run_id in ids])]
    gaps = [_counted(reason, ids, runs) for reason, ids in left_out.items() if ids]
    if used.empty:
        raise DataError(f"none of the {len(runs)} runs can be compared on {name!r}. {' '.join(gaps)}")
    values = used[["name", "group", "seed", "value", "step"]].astype({"group": "str", "step": "int64"})
    labels = group_labels(runs.runs.loc[values.index], values["group"], column)
    scores = {str(group): _seed_scores(part) for group, part in values.groupby("group")}
    groups = _groups_frame(values, scores, labels, mode, confidence, entropy)
    best = _best_run(values, labels, mode)
    n_evaluations = int(runs.points_of(name).loc[values.index].sum()) if at == "best" else len(values)
    return Comparison(
        metric=name,
        mode=mode,
        by=column,
        at=at,
        confidence=confidence,
        groups=groups,
        values=values,
        n_given=len(runs),
        n_evaluations=n_evaluations,
        best_run=best,
        findings=(*_ranking(groups, scores, mode), _optimism(best, len(values), n_evaluations, at, mode)),
        notes=(*gaps, *_cautions(runs, values, groups, column), *_reading_notes(runs)),
    )


def _checked_settings(runs: RunSet, mode: str, by: str, at: str, confidence: float, statuses: Sequence[str]) -> str:
    """Returns the column that `by` names; raises ConfigurationError with every problem of the settings."""
    problems: list[str] = []
    try:
        check_mode(mode)
    except TrackingError as error:
        problems.append(str(error))
    if at not in ("last", "best"):
        problems.append(f"at must be 'last' or 'best' but got {at!r}")
    if not 0.0 < confidence < 1.0:
        problems.append(f"confidence must lie strictly between 0 and 1 but got {confidence!r}")
    unknown = [status for status in statuses if status not in STATUSES]
    if unknown or not statuses:
        problems.append(f"statuses must be among {', '.join(STATUSES)} but got {unknown or 'none'}")
    columns = [str(column) for column in runs.runs.columns]
    column = next((name for name in (by, f"param.{by}", f"tag.{by}") if name in columns), None)
    if column is None:
        known = [name.removeprefix("param.").removeprefix("tag.") for name in columns]
        problems.append(
            f"by must name a column, parameter or tag of the runs but got {by!r}{names.suggestion(by, known)}: "
            f"there are {', '.join(known)}"
        )
    if problems or column is None:
        raise ConfigurationError("; ".join(problems))
    return column


def _left_out(table: pd.DataFrame, metric: str, by: str, statuses: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Yields why runs are not compared and which; a run is left out for its first reason."""
    for status in sorted(set(table["status"]) - set(statuses)):
        yield f"with status {status}", list(table.index[table["status"] == status])
    table = table[table["status"].isin(statuses)]
    absent = table["step"].isna()
    yield f"without any defined point of {metric}", list(table.index[absent])
    yield (
        f"whose last value of {metric} is undefined (NaN or infinite)",
        list(table.index[table["value"].isna() & ~absent]),
    )
    table = table[table["value"].notna()]
    yield f"without a value of {by.removeprefix('param.')}", list(table.index[table["group"].isna()])


def _counted(reason: str, run_ids: Sequence[str], runs: RunSet) -> str:
    named = ", ".join(str(name) for name in runs.runs.loc[list(run_ids[:_NAMED]), "name"])
    more = f" and {len(run_ids) - _NAMED} more" if len(run_ids) > _NAMED else ""
    noun = "run" if len(run_ids) == 1 else "runs"
    return f"Left out: {len(run_ids)} {noun} {reason}: {named}{more}."


def _seed_scores(part: pd.DataFrame) -> FloatArray:
    """Returns one score a seed; a run that recorded no seed stands for one of its own."""
    seeds = part["seed"].astype("object").where(part["seed"].notna(), pd.Series(part.index, index=part.index))
    return part["value"].groupby(seeds.to_numpy()).mean().to_numpy(dtype=np.float64)


def _groups_frame(
    values: pd.DataFrame,
    scores: dict[str, FloatArray],
    labels: dict[Any, str],
    mode: Mode,
    confidence: float,
    entropy: int,
) -> pd.DataFrame:
    rows = []
    for group, part in values.groupby("group"):
        score_R = scores[str(group)]
        best = _best_run(part, labels, mode)
        low, high = _interval(score_R, confidence, [entropy, names.hash_text(str(group))])
        rows.append(
            {
                "group": str(group),
                "label": labels[group],
                "n_seeds": len(score_R),
                "n_runs": len(part),
                "mean": float(score_R.mean()),
                "iqm": interquartile_mean(score_R[:, None]),
                "low": low,
                "high": high,
                "sd": float(score_R.std(ddof=1)) if len(score_R) > 1 else math.nan,
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


def _interval(score_R: FloatArray, confidence: float, entropy: list[int]) -> tuple[float, float]:
    if len(score_R) < LEAST_SEEDS:
        return math.nan, math.nan
    # A stream for each group: its interval does not depend on which other groups are compared.
    return stratified_bootstrap_interval(
        score_R[:, None],
        interquartile_mean,
        rng=np.random.default_rng(entropy),
        n_resamples=N_RESAMPLES,
        confidence=confidence,
    )


def _best_run(values: pd.DataFrame, labels: dict[Any, str], mode: Mode) -> BestRun:
    column = values["value"]
    run_id = str(column.idxmax() if mode == "max" else column.idxmin())
    row = values.loc[run_id].to_dict()
    return BestRun(run_id, str(row["name"]), float(row["value"]), int(row["step"]), labels[row["group"]])


def _ranking(groups: pd.DataFrame, scores: dict[str, FloatArray], mode: Mode) -> Iterator[str]:
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
    first, second = ranked.iloc[0], ranked.iloc[1]
    sign = 1.0 if mode == "max" else -1.0
    x, y = (scores[str(key)] for key in ranked.index[:2])
    better = probability_of_improvement(sign * x[:, None], sign * y[:, None])
    overlap = first["low"] <= second["high"] and second["low"] <= first["high"]
    yield (
        f"{first['label']} comes before {second['label']}: a seed of the first is better than one of the second with "
        f"probability {better:.2f}; their intervals {'overlap: not clearly apart' if overlap else 'are apart'}."
    )
    if overlap:
        needed = seeds_to_separate(first["mean"], first["sd"], second["mean"], second["sd"])
        if math.isfinite(needed):
            yield (
                f"If the means and spreads seen were the true ones, about {needed:.0f} seeds a group would separate "
                "these two (two-sided Welch test, 5 %, power 0.9)."
            )


def _optimism(best: BestRun, n_runs: int, n_evaluations: int, at: At, mode: Mode) -> str:
    over = f"{n_runs} trials" if at == "last" else f"{n_evaluations} evaluations of {n_runs} trials"
    if n_runs == 1 and n_evaluations == 1:
        return f"The only value is {best.value:.4g} ({best.name})."
    return (
        f"The best single value, {best.value:.4g} ({best.name}), is the best of {over}: it was chosen for being "
        f"{'high' if mode == 'max' else 'low'}, so it is optimistic, and the more were looked at, the more so. It is "
        "no estimate of what this run does on new data."
    )


def _cautions(runs: RunSet, values: pd.DataFrame, groups: pd.DataFrame, by: str) -> Iterator[str]:
    used = runs.runs.loc[values.index]
    for column, plural in _WINDOW.items():
        known = used[column].dropna().unique() if column in used else ()
        if len(known) > 1:
            shown = ", ".join(str(value) for value in known[:_NAMED]) + (", ..." if len(known) > _NAMED else "")
            yield f"Not comparable: the runs come from {len(known)} {plural} ({shown}); on other data, other values."
    steps = values["step"]
    if steps.nunique() > 1:
        span = f"{steps.min():,} to {steps.max():,}"
        yield f"The values were taken at different env steps, {span}: some runs had less training."
    unseeded = int(values["seed"].isna().sum())
    if unseeded:
        yield f"{unseeded} of {len(values)} runs recorded no seed: each counts as one."
    repeated = int((groups["n_runs"] - groups["n_seeds"]).sum())
    if repeated:
        yield (
            f"{repeated} runs repeat a seed of their group: runs of one seed are averaged, so that n counts seeds."
            + (" They may differ in other parameters." if by != "config_hash" else "")
        )


def _reading_notes(runs: RunSet) -> Iterator[str]:
    yield from (f"{note[0].upper()}{note[1:]}." for note in runs.notes)
    for item in runs.unreadable[:_NAMED]:
        yield f"Run {runs.runs['name'].get(item.run_id, item.run_id)} could not be read in full: {item.reason}."
    if len(runs.unreadable) > _NAMED:
        yield f"{len(runs.unreadable) - _NAMED} more runs could not be read in full."


def _seeds(count: int) -> str:
    return f"{count} seed" if count == 1 else f"{count} seeds"


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    plain = frame.reset_index().astype("object")
    return [{str(key): _plain(value) for key, value in row.items()} for row in plain.to_dict("records")]


def _plain(value: Any) -> Any:
    if pd.isna(value):
        return None
    return value.item() if isinstance(value, np.generic) else value
