"""Compares groups of runs on one metric: seeds replicate, small samples are said to be small, nothing is hidden."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from drl_ray_tracking import names
from drl_ray_tracking.analysis import findings
from drl_ray_tracking.analysis.comparison import AT, SEED, At, Comparison
from drl_ray_tracking.analysis.inputs import generator
from drl_ray_tracking.analysis.labels import group_labels
from drl_ray_tracking.analysis.ranking import best_run, groups_frame, pairs_frame, variance_of
from drl_ray_tracking.analysis.runset import STATUSES, Mode, RunSet, check_mode
from drl_ray_tracking.analysis.scores import scores_of
from drl_ray_tracking.errors import ConfigurationError, DataError, TrackingError


def compare(
    runs: RunSet,
    *,
    metric: str = names.DEFAULT_METRIC,
    mode: Mode = "max",
    by: str = "config_hash",
    at: At = "last",
    budget: int | None = None,
    confidence: float = 0.95,
    rng: np.random.Generator | None = None,
    statuses: Sequence[str] = ("FINISHED",),
) -> Comparison:
    """Compares groups of runs on one metric.

    Args:
        runs: what `load_runs` or `RunSet.from_tune` returned.
        metric: MLflow name or Tune path.
        mode: `max` where higher is better, `min` where lower is.
        by: what makes a group: `config_hash`, or a column of `runs.runs`, or a parameter's or tag's name.
        at: a run's `last` value; its `best` over all evaluations (which is optimistic); or the last one at or before
            an env step that every run has reached, at equal `budget`.
        budget: that env step; None takes the largest that all compared runs reached.
        confidence: of the bootstrap interval of the interquartile mean, inside (0, 1).
        rng: randomness of the bootstrap; None for a generator seeded with `SEED`, so that a comparison repeats.
        statuses: of the runs compared; the others are counted and named in the notes.

    Raises:
        ConfigurationError: a setting is not allowed; lists every problem at once.
        DataError: no run has the metric, or none that has it may be compared.
    """
    column = _checked_settings(runs, mode, by, at, budget, confidence, statuses)
    entropy = SEED if rng is None else int(generator(rng).integers(2**63))
    name = runs.resolve(metric)
    runs = runs.with_metrics(name)
    if at == "budget" and budget is None:
        budget = _common_budget(runs, name, column, statuses)
    points = _points(runs, name, mode, at, budget)
    table = runs.runs.reindex(columns=["name", "status", "seed", "window_id"]).rename(columns={"window_id": "window"})
    table = table.assign(group=runs.runs[column], **points)
    left_out = dict(_left_out(table, runs, name, column, statuses, budget))
    used = table[~table.index.isin([run_id for ids in left_out.values() for run_id in ids])]
    gaps = [findings.counted(reason, ids, runs) for reason, ids in left_out.items() if ids]
    if used.empty:
        raise DataError(f"none of the {len(runs)} runs can be compared on {name!r}. {' '.join(gaps)}")
    values = used[["name", "group", "seed", "window", "value", "step"]].astype({"group": "str", "step": "int64"})
    labels = group_labels(runs.runs.loc[values.index], values["group"], column)
    scores = scores_of(values)
    groups = groups_frame(values, scores, labels, mode, confidence, entropy)
    pairs = pairs_frame(groups, scores, mode)
    variance, needed = variance_of(scores), findings.seeds_between(groups, mode)
    best = best_run(values, labels, mode)
    n_evaluations = int(runs.points_of(name).loc[values.index].sum()) if at == "best" else len(values)
    return Comparison(
        metric=name,
        mode=mode,
        by=column,
        at=at,
        budget=budget,
        confidence=confidence,
        groups=groups,
        values=values,
        windows=scores.windows,
        n_given=len(runs),
        n_evaluations=n_evaluations,
        best_run=best,
        findings=(
            *findings.ranking(groups, pairs, needed),
            *findings.sources_of_variance(variance),
            findings.optimism(best, len(values), n_evaluations, at, mode),
        ),
        notes=(
            *gaps,
            *findings.cautions(runs, values, groups, column, scores.windows, at),
            *findings.reading_notes(runs),
        ),
        pairs=pairs,
        variance=variance,
        seeds_needed=needed,
    )


def _points(runs: RunSet, metric: str, mode: Mode, at: At, budget: int | None) -> pd.DataFrame:
    if at == "best":
        return runs.best(metric, mode)
    return runs.final(metric) if budget is None else runs.at_budget(metric, budget)


def _common_budget(runs: RunSet, metric: str, by: str, statuses: Sequence[str]) -> int | None:
    """Returns the env step that every run to be compared has reached; None where none has any defined point."""
    compared = runs.runs["status"].isin(statuses) & runs.runs[by].notna() & runs.best(metric)["step"].notna()
    reached = runs.final(metric).loc[compared, "step"]
    return int(reached.min()) if len(reached) else None


def _checked_settings(
    runs: RunSet, mode: str, by: str, at: str, budget: int | None, confidence: float, statuses: Sequence[str]
) -> str:
    """Returns the column that `by` names; raises ConfigurationError with every problem of the settings."""
    problems: list[str] = []
    try:
        check_mode(mode)
    except TrackingError as error:
        problems.append(str(error))
    if at not in AT:
        problems.append(f"at must be {', '.join(map(repr, AT[:-1]))} or {AT[-1]!r} but got {at!r}")
    if budget is not None and (at != "budget" or budget < 0):
        problems.append(f"budget must be env steps, and goes with at='budget', but got {budget!r} with at={at!r}")
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


def _left_out(
    table: pd.DataFrame, runs: RunSet, metric: str, by: str, statuses: Sequence[str], budget: int | None
) -> Iterator[tuple[str, list[str]]]:
    """Yields why runs are not compared and which; a run is left out for its first reason."""
    for status in sorted(set(table["status"]) - set(statuses)):
        yield f"with status {status}", list(table.index[table["status"] == status])
    table = table[table["status"].isin(statuses)]
    defined = runs.best(metric)["step"].loc[table.index].notna()
    yield f"without any defined point of {metric}", list(table.index[~defined])
    table = table[defined]
    early = table["step"].isna()
    yield f"without a point of {metric} within {budget or 0:,} env steps", list(table.index[early])
    undefined = table["value"].isna() & ~early
    yield (f"whose last value of {metric} is undefined (an older one is not taken)", list(table.index[undefined]))
    table = table[table["value"].notna()]
    yield f"without a value of {by.removeprefix('param.')}", list(table.index[table["group"].isna()])
