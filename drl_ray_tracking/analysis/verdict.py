"""The verdict: may the best evaluation of a sweep be believed, given everything that was looked at to find it?

Accepted is what two tests of different weakness both pass:

- its deflated Sharpe ratio is at least 95 %, where N counts every (trial, evaluation) on the same bars over all
  sweeps: the best of so many under pure luck is what it has to beat;
- the 95 % block-bootstrap interval of its Sharpe ratio lies above 0: bars are not independent.

The probability of backtest overfitting is said, but decides nothing: it averages one half under pure noise, with a
wide spread, and also where all trials are equally good.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import pandas as pd

from drl_ray_tracking.analysis.bootstrap import block_bootstrap_sharpe_interval, effective_sample_size
from drl_ray_tracking.analysis.comparison import LEAST_SEEDS, SEED, Comparison, Verdict, VerdictNumber
from drl_ray_tracking.analysis.evaluations import weights_step
from drl_ray_tracking.analysis.inputs import FloatArray
from drl_ray_tracking.analysis.multiplicity import effective_number_of_trials
from drl_ray_tracking.analysis.overfitting import BLOCKS
from drl_ray_tracking.analysis.runset import RunSet, is_evaluated
from drl_ray_tracking.analysis.selection import (
    deflated_sharpe_ratio,
    expected_maximum_sharpe,
    minimum_track_record_length,
    probabilistic_sharpe_ratio,
    skewness_and_kurtosis,
)
from drl_ray_tracking.analysis.tries import Tries, tries_of
from drl_ray_tracking.errors import DataError

ENOUGH: Final = 0.95  # of the deflated Sharpe ratio, and of the interval
N_RESAMPLES: Final = 2000
_NAMED: Final = 5
_CANNOT: Final = "Its luck and its skill cannot be told apart."


@dataclass(frozen=True)
class Evidence:
    """What one evaluation's returns say, chosen from so many; Sharpe ratios are per period.

    Attributes:
        sharpe, skewness, kurtosis: of the bar returns (kurtosis not in excess).
        n_obs: bars.
        n_candidates: everything the choice looked at.
        luck: the Sharpe ratio expected of the best of them without any skill.
        psr: probability that the true ratio is above 0, for one look only.
        dsr: probability that it is above `luck`.
        interval: 95 %, block bootstrap.
        effective_t: bars that independent ones would need to say as much.
        track_record: bars that would show, at 95 %, that it is above `luck`; infinite where it is not.
    """

    sharpe: float
    skewness: float
    kurtosis: float
    n_obs: int
    n_candidates: int
    luck: float
    psr: float
    dsr: float
    interval: tuple[float, float]
    effective_t: float
    track_record: float

    @property
    def accepted(self) -> bool:
        """Whether both tests are passed."""
        return self.dsr >= ENOUGH and self.interval[0] > 0.0


def evidence(
    returns_T: FloatArray, n_candidates: int, sharpe_variance: float, rng: np.random.Generator | None = None
) -> Evidence:
    """Returns what the returns of a chosen evaluation say.

    Args:
        returns_T: (time,), bar returns of one path, in order.
        n_candidates: how many evaluations it was chosen from, itself included.
        sharpe_variance: variance of the per-period Sharpe ratio over them.
        rng: of the bootstrap; None for one seeded with `SEED`.

    Raises:
        DataError: too few bars, or returns that do not move.
    """
    moved = np.asarray(returns_T, dtype=np.float64)
    if len(moved) < 3 or moved.std() <= 1e-12:
        raise DataError("its returns do not move: it never traded, or on too few bars")
    sharpe = float(moved.mean() / moved.std(ddof=1))
    skewness, kurtosis = skewness_and_kurtosis(moved)
    luck = expected_maximum_sharpe(n_candidates, sharpe_variance)
    return Evidence(
        sharpe=sharpe,
        skewness=skewness,
        kurtosis=kurtosis,
        n_obs=len(moved),
        n_candidates=n_candidates,
        luck=luck,
        psr=probabilistic_sharpe_ratio(sharpe, len(moved), skewness, kurtosis),
        dsr=deflated_sharpe_ratio(sharpe, len(moved), skewness, kurtosis, n_candidates, sharpe_variance),
        interval=block_bootstrap_sharpe_interval(
            moved, rng=rng or np.random.default_rng(SEED), n_resamples=N_RESAMPLES, confidence=ENOUGH
        ),
        effective_t=effective_sample_size(moved),
        track_record=minimum_track_record_length(sharpe, skewness, kurtosis, luck, ENOUGH),
    )


def judged(comparison: Comparison, runs: RunSet, pool: RunSet | None = None) -> Comparison:
    """Returns the comparison with its verdict.

    Args:
        comparison: of `runs`.
        runs: what was compared.
        pool: everything that was tried on the same bars, other sweeps included; None takes `runs`.
    """
    everything = runs if pool is None else pool
    best = comparison.best_run
    window = runs.runs["window_id"].get(best.run_id) if "window_id" in runs.runs else None
    tries = tries_of(everything, comparison.metric, "" if pd.isna(window) else str(window), best.run_id)
    scored = weights_step(runs.with_metrics(comparison.metric), best.run_id, best.step)
    scope = "over all sweeps of the experiment on these bars" if pool is not None else "in what was loaded"
    reasons = [
        f"{reason[0].upper()}{reason[1:].rstrip('.')}." for reason in list(tries.without_series.values())[:_NAMED]
    ]
    return replace(
        comparison,
        verdict=verdict(comparison, tries, scope, everything.test_evaluations, scored),
        tries=tries,
        notes=(*comparison.notes, *reasons),
    )


def verdict(comparison: Comparison, tries: Tries, scope: str, test_evaluations: int | None, scored: int) -> Verdict:
    """Judges the best run of a comparison. Never raises for what the data lack.

    Args:
        comparison: what was compared.
        tries: everything that was looked at on the bars of its best run.
        scope: what they are all of, in words.
        test_evaluations: looks at test windows so far; None where that is not known.
        scored: env steps of the weights that the best run's value is of.
    """
    best = comparison.best_run
    subject = f"{best.name} ({best.group})"
    try:
        chosen = tries.chosen(best.run_id, scored, exact=is_evaluated(comparison.metric))
        found = evidence(chosen, tries.looked_at, tries.sharpe_variance)
    except DataError as error:
        said = f"{error}".replace("{", "{{").replace("}", "}}")
        return Verdict(None, subject, f"{said[:1].upper()}{said[1:]}.", _CANNOT, ())
    numbers = (
        *_numbers(found, math.sqrt(tries.sharpe_variance), scope),
        *_overfitting(tries),
        *_gaps(tries),
        *_seeds(comparison),
        *_budget(test_evaluations),
    )
    sentences = _sentences(comparison, found, {number.name for number in numbers}, scope)
    return Verdict(found.accepted, subject, " ".join(sentences), _advice(found), numbers)


def _numbers(found: Evidence, spread: float, scope: str) -> Iterator[VerdictNumber]:
    yield _count("candidates", found.n_candidates, f"evaluations the best was chosen from, {scope}")
    yield _ratio("sharpe", found.sharpe, "Sharpe ratio a bar, of the best evaluation")
    yield _ratio("low", found.interval[0], "lower end of its interval, block bootstrap")
    yield _ratio("high", found.interval[1], "upper end of its interval, block bootstrap")
    yield VerdictNumber("level", ENOUGH, "confidence of that interval", f"{100 * ENOUGH:.0f} %")
    yield _ratio("luck", found.luck, "Sharpe ratio a bar expected of the best of so many without skill")
    yield _ratio("spread", spread, "standard deviation of the candidates' Sharpe ratios, which luck grows with")
    yield _share("dsr", found.dsr, "deflated Sharpe ratio: probability that the true ratio is above luck")
    yield _share("asked", ENOUGH, "what that probability has to reach")
    yield _share("psr", found.psr, "probability that it is above 0, had there been one look only")
    yield _ratio("skewness", found.skewness, "of its returns")
    yield _ratio("kurtosis", found.kurtosis, "of its returns, 3 for a normal distribution")
    yield _count("bars", found.n_obs, "bars it was measured on")
    yield _count("effective_bars", found.effective_t, "independent bars these are worth")
    yield _count("track_record", found.track_record, "bars needed to show that it is above luck, at that probability")


def _overfitting(tries: Tries) -> Iterator[VerdictNumber]:
    try:
        pbo = tries.overfitting
    except DataError:  # too few bars or candidates, or one with a constant return: there is no such number
        return
    room = len(tries.returns_TN) // 2 >= BLOCKS
    why = f", no more for {tries.returns_TN.shape[1]:,} candidates" if room and pbo.n_splits < BLOCKS else ""
    yield _share("pbo", pbo.pbo, f"probability of backtest overfitting, {pbo.n_splits} blocks{why}")
    with suppress(DataError):
        worth = effective_number_of_trials(tries.returns_TN)
        yield _count("effective_trials", worth, "independent candidates these are worth")


def _gaps(tries: Tries) -> Iterator[VerdictNumber]:
    if tries.without_series:
        yield _count("without_series", len(tries.without_series), "trials without a return series to judge by")
    if tries.left_out:
        yield _count(
            "other_bars", len(tries.left_out), "evaluations with other bars than the most: ruined, or cut short"
        )


def _seeds(comparison: Comparison) -> Iterator[VerdictNumber]:
    yield _count("seeds", int(comparison.groups["n_seeds"].min()), "seeds of the group that has the fewest")
    yield _count("least_seeds", LEAST_SEEDS, "seeds a group needs to be ranked")
    if comparison.seeds_needed is not None and math.isfinite(comparison.seeds_needed):
        meaning = "seeds a group that would separate the first two groups (Welch test, 5 %, power 0.9)"
        yield _count("seeds_needed", comparison.seeds_needed, meaning)


def _budget(test_evaluations: int | None) -> Iterator[VerdictNumber]:
    if test_evaluations is not None:
        yield _count("test_evaluations", test_evaluations, "looks at test windows, so far")


def _sentences(comparison: Comparison, found: Evidence, known: set[str], scope: str) -> Iterator[str]:
    yield (
        "Its Sharpe ratio is {sharpe} a bar ({level} interval {low} to {high}; {bars} bars worth {effective_bars} "
        f"independent ones); the best of {{candidates}} candidates ({scope}) would reach {{luck}} by luck."
    )
    yield "The probability that it is better than luck is {dsr}; {asked} is asked for."
    if not found.accepted and math.isfinite(found.track_record):
        yield "At this ratio, {track_record} bars would be enough to show it."
    if "pbo" in known:
        yield (
            "Probability of backtest overfitting: {pbo} (one half is what noise gives on average, and equally good "
            "trials too)."
        )
    if comparison.groups["n_seeds"].min() < LEAST_SEEDS:
        yield "The group with the fewest seeds has {seeds}; {least_seeds} are needed to rank it."
    elif "seeds_needed" in known:
        yield "To separate the first two groups takes about {seeds_needed} seeds each; the fewest now is {seeds}."
    if "without_series" in known:
        yield "Trials without a return series: {without_series}; they count as candidates all the same."
    if "other_bars" in known:
        yield "Evaluations left out for having other bars: {other_bars}."
    yield "All of this is on the validation bars the choice was made on;"
    if "test_evaluations" in known:
        yield "looks at test windows so far: {test_evaluations}."
    else:
        yield "how often test windows were looked at is not known here."


def _advice(found: Evidence) -> str:
    if found.accepted:
        return "What is due now is one look at a test window, with this candidate alone (`drl-track promote`)."
    if found.dsr >= ENOUGH:
        return "Do not act on it: its interval reaches down to 0; more bars would narrow it."
    return (
        "Do not act on it: measure this one on more bars, or choose from fewer; each further trial or checkpoint on "
        "these bars raises what luck alone would reach."
    )


def _count(name: str, value: float, meaning: str) -> VerdictNumber:
    return VerdictNumber(name, value, meaning, f"{value:,.0f}" if math.isfinite(value) else "∞")


def _ratio(name: str, value: float, meaning: str) -> VerdictNumber:
    return VerdictNumber(name, value, meaning, f"{value:.4f}".replace("-", "−"))


def _share(name: str, value: float, meaning: str) -> VerdictNumber:
    return VerdictNumber(name, value, meaning, f"{value:.3g}" if value == ENOUGH else f"{value:.3f}")
