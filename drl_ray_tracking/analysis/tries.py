"""Everything that was looked at on one window before something was chosen: what the best of it was chosen from.

Every (trial, evaluation) on the same bars is one try, across all sweeps of the experiment: a rule that takes the
best checkpoint of the best trial has looked at each of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from drl_ray_tracking import names
from drl_ray_tracking.analysis.bars import Bars, bars_of
from drl_ray_tracking.analysis.budget import WindowBars
from drl_ray_tracking.analysis.evaluations import judged_bars, times_of
from drl_ray_tracking.analysis.inputs import FloatArray
from drl_ray_tracking.analysis.overfitting import BacktestOverfitting, overfitting_in_blocks
from drl_ray_tracking.analysis.runset import RunSet
from drl_ray_tracking.errors import DataError

_AT_ONCE: Final = 8  # series read at a time
_NO_TIMES: Final = (
    f"it has no tag `{names.TAG_WINDOW_ID}`, and its series has no times to know its bars by: give the trials that tag "
    "(`trial_tags` of the callback), the same for those on the same bars, or let the environment tell timestamps"
)


class LeftOut(NamedTuple):
    """An evaluation with other bars than the most: ruined, or cut short."""

    run_id: str
    step: int
    bars: int


@dataclass(frozen=True, eq=False)
class Tries:
    """Everything that was looked at on one window.

    Attributes:
        returns_TN: (bar, try) of those whose bars are all there; 0 after a ruin.
        keys: (run id, env steps of the weights) of each of these, in order.
        looked_at: how many tries there were, those without bars included.
        without_series: why the returns of a trial could not be had, by run id.
        left_out: evaluations with other bars than the most.
        ruined: column -> (bar,) which of its bars come before or at a ruin, of those that have one.
    """

    returns_TN: FloatArray
    keys: tuple[tuple[str, int], ...]
    looked_at: int
    without_series: Mapping[str, str] = field(default_factory=dict)
    left_out: tuple[LeftOut, ...] = ()
    ruined: Mapping[int, NDArray[np.bool_]] = field(default_factory=dict)

    @property
    def sharpe_variance(self) -> float:
        """Variance over tries of the per-period Sharpe ratio; one that never traded has 0.

        Raises:
            DataError: several were looked at, and fewer than two have bars: how they vary is not known.
        """
        known = self.returns_TN.shape[1]
        if self.looked_at <= 1:
            return 0.0
        if known < 2:
            raise DataError(
                f"{self.looked_at} evaluations were looked at, but only {known} of them has its bars in a return "
                "series: how their Sharpe ratios vary, and so what the best of them would reach by luck, is not known"
            )
        deviation = self.returns_TN.std(axis=0, ddof=1)
        still = deviation <= 1e-12
        ratios = np.where(still, 0.0, self.returns_TN.mean(axis=0) / np.where(still, 1.0, deviation))
        return float(ratios.var(ddof=1))

    @cached_property
    def overfitting(self) -> BacktestOverfitting:
        """The probability of backtest overfitting of everything that was tried, in as many blocks as fit.

        Raises:
            DataError: there are too few bars or candidates, or one has a constant return.
        """
        return overfitting_in_blocks(self.returns_TN)

    def chosen(self, run_id: str, step: int, *, exact: bool = False) -> FloatArray:
        """Returns the bar returns of a run's evaluation of the weights at an env step, up to a ruin.

        Args:
            run_id: of the run.
            step: env steps of the weights.
            exact: that very evaluation; otherwise the last one until then.

        Raises:
            DataError: it has none, or none that is whole; says why.
        """
        if run_id in self.without_series:
            raise DataError(f"there is no return series of its evaluation: {self.without_series[run_id]}")
        own = [(at, column) for column, (run, at) in enumerate(self.keys) if run == run_id]
        until = [(at, column) for at, column in own if (at == step if exact else at <= step)]
        if until:
            column = max(until)[1]
            returns = self.returns_TN[:, column]
            return returns[self.ruined[column]] if column in self.ruined else returns
        cut = [one.bars for one in self.left_out if one.run_id == run_id and one.step == step]
        if cut:
            raise DataError(
                f"the evaluation at {step:,} env steps has {cut[-1]:,} bars where most on its window have "
                f"{len(self.returns_TN):,}: it is not whole, and no other one is taken for it"
            )
        at = f": it has one at {', '.join(f'{at:,}' for at, _ in sorted(own)[:5])} env steps" if own else ""
        raise DataError(f"there is no return series of its evaluation at {step:,} env steps{at}")


class _Evaluation(NamedTuple):
    step: int
    returns: FloatArray
    counted: NDArray[np.bool_] | None  # which bars come before or at a ruin; None where there was none


class _Read(NamedTuple):
    evaluations: Sequence[_Evaluation]
    times: NDArray[np.uint64] | None = None
    problem: str = ""


def tries_of(runs: RunSet, metric: str, window_id: str, like: str = "") -> Tries:
    """Collects every evaluation of the runs on one window.

    Args:
        runs: all trials of the experiment, whatever their sweep.
        metric: the one the candidate was chosen by.
        window_id: of the bars; runs on other bars do not count. Those on windows that share some of them (another
            embargo, another name of the symbol) are tries whose returns are not comparable bar by bar. Without one,
            the runs that have none count whose series have bars at the times of the run `like`, or all at some of
            them, and those without a series.
        like: the candidate's run.
    """
    points = runs.with_metrics(metric).points_of(metric)
    found = dict(_read_all(runs, metric, window_id))
    notes = {run_id: read.problem for run_id, read in found.items() if read.problem}
    if not window_id:
        own = found[like].times if like in found else None
        if own is None and like in found:
            notes.setdefault(like, _NO_TIMES)
        found = {run_id: read for run_id, read in found.items() if _on_the_same_bars(read.times, own)}
        notes = {run_id: why for run_id, why in notes.items() if run_id in found}
    columns = [one for read in found.values() for one in read.evaluations]
    keys = [(run_id, one.step) for run_id, read in found.items() for one in read.evaluations]
    # A trial that failed before its first evaluation was a try all the same.
    looked_at = sum(max(1, len(read.evaluations), int(points.loc[run_id])) for run_id, read in found.items())
    looked_at += sum(max(1, int(points.loc[run_id])) for run_id in _sharing(runs.runs, window_id))
    counts = Counter(len(one.returns) for one in columns)
    length = max(counts, key=lambda bars: (counts[bars], bars), default=0)
    whole = [index for index, one in enumerate(columns) if len(one.returns) == length]
    return Tries(
        returns_TN=np.column_stack([columns[index].returns for index in whole]) if whole else np.empty((0, 0)),
        keys=tuple(keys[index] for index in whole),
        looked_at=looked_at,
        without_series=notes,
        left_out=tuple(
            LeftOut(*key, len(one.returns))
            for key, one in zip(keys, columns, strict=True)
            if len(one.returns) != length
        ),
        ruined={
            column: counted for column, index in enumerate(whole) if (counted := columns[index].counted) is not None
        },
    )


def _on_the_same_bars(times: NDArray[np.uint64] | None, own: NDArray[np.uint64] | None) -> bool:
    """Tells whether one has bars only at the other's times; what is not known may be."""
    if times is None or own is None:
        return True
    shared = len(np.intersect1d(times, own, assume_unique=True))
    return shared in (len(times), len(own))


def _sharing(runs: pd.DataFrame, window_id: str) -> list[str]:
    """Returns the runs on other windows that have bars of this one's."""
    told = runs.reindex(columns=["window_id", "data_digest", "window_bars"])
    bars = {str(run_id): _bars(row["data_digest"], row["window_bars"]) for run_id, row in told.iterrows()}
    there = told["window_id"] == window_id
    mine = {bars[str(run_id)] for run_id in runs.index[there]} - {None}
    others = [str(run_id) for run_id in runs.index[~there]]
    return [run_id for run_id in others if any(one is not None and one.shares(bars[run_id]) for one in mine)]


def _bars(digest: object, window: object) -> WindowBars | None:
    if not isinstance(digest, str) or not isinstance(window, str):
        return None  # an earlier version's, or no trial of a market's
    try:
        first, last = map(float, window.split())
    except ValueError:
        return None
    return WindowBars(digest, first, last)


def _read_all(runs: RunSet, metric: str, window_id: str) -> Iterator[tuple[str, _Read]]:
    window = runs.runs["window_id"] if "window_id" in runs.runs else pd.Series(None, index=runs.runs.index)
    there = window == window_id if window_id else window.isna() | (window == "")
    run_ids = [str(run_id) for run_id in runs.runs.index[there]]
    with ThreadPoolExecutor(_AT_ONCE) as readers:
        yield from zip(
            run_ids, readers.map(partial(_read, runs, metric, with_times=not window_id), run_ids), strict=True
        )


def _read(runs: RunSet, metric: str, run_id: str, *, with_times: bool) -> _Read:
    """Returns the evaluations of a run, or why there are none."""
    try:
        bars = judged_bars(runs.series(run_id), metric)
    except DataError as error:
        return _Read((), problem=str(error))
    return _Read(tuple(_evaluations(bars)), times_of(bars) if with_times else None)


def _evaluations(series: pd.DataFrame) -> Iterator[_Evaluation]:
    """Yields env steps and bar returns of each evaluation, its windows one after the other."""
    iteration, step, episode, bar = (series[key].to_numpy() for key in ("iteration", "step", "episode", "bar"))
    order = np.lexsort((bar, episode, step, iteration))
    equity = series["equity"].to_numpy(dtype=np.float64)[order]
    keys = np.column_stack([iteration, step, episode])[order]
    starts = np.flatnonzero(np.append(True, (keys[1:] != keys[:-1]).any(axis=1))) if len(keys) else np.empty(0, int)
    parts: dict[tuple[int, int], list[Bars]] = {}
    for begin, end in pairwise([*starts, len(keys)]):
        parts.setdefault((int(keys[begin, 0]), int(keys[begin, 1])), []).append(bars_of(equity[begin:end]))
    for (_, at), own in parts.items():
        alive = [np.arange(len(one.returns)) < one.counted for one in own]
        ruined = any(one.counted < len(one.returns) for one in own)
        yield _Evaluation(at, np.concatenate([one.returns for one in own]), np.concatenate(alive) if ruined else None)
