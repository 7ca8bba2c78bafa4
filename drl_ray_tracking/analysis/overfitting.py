"""The probability of backtest overfitting: does the best in one half of history stay good in the other?

Combinatorially symmetric cross-validation (CSCV): time is cut into S equal blocks; for each of the C(S, S/2)
ways to call half of them in-sample, the trial with the best in-sample Sharpe ratio is ranked out of sample.

Source: Bailey, Borwein, Lopez de Prado, Zhu, "The Probability of Backtest Overfitting", 2014.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from drl_ray_tracking.analysis.inputs import FloatArray, finite_matrix, whole_number
from drl_ray_tracking.errors import DataError

# C(20, 10) = 184,756 splits; the next even number is 705,432 and tells nothing more.
_MOST_BLOCKS = 20

BLOCKS = 16
_BARS_A_BLOCK = 2
_MOST_RATIOS = 50_000_000  # candidates times splits

# Sharpe ratios held at once: temporaries that stay in a processor's cache take a third of the time.
_CHUNK_VALUES = 20_000


@dataclass(frozen=True, eq=False)
class BacktestOverfitting:
    """The outcome of CSCV; split k of every array is the k-th combination of blocks in lexicographic order.

    Attributes:
        pbo: share of splits whose in-sample best ends at or below the out-of-sample median (logit <= 0).
        logits: (split,) log(w / (1 - w)), w = out-of-sample rank of the in-sample best / (N + 1).
        probability_of_loss: share of splits whose in-sample best has a negative out-of-sample Sharpe ratio.
        slope: least-squares slope of the best's out-of-sample Sharpe ratio on its in-sample one (performance
            degradation); None where the in-sample one does not vary.
        in_sample_sharpe: (split,) the best's Sharpe ratio in sample, per period.
        out_of_sample_sharpe: (split,) the same trial's Sharpe ratio out of sample, per period.
        n_splits: S, the number of blocks.
        dropped_rows: oldest rows left out so that the blocks are equally long, T mod S.
    """

    pbo: float
    logits: FloatArray
    probability_of_loss: float
    slope: float | None
    in_sample_sharpe: FloatArray
    out_of_sample_sharpe: FloatArray
    n_splits: int
    dropped_rows: int


def _memberships(n_blocks: int) -> FloatArray:
    """Returns (split, block) ones where the block is in-sample."""
    chosen = np.array(list(combinations(range(n_blocks), n_blocks // 2)))
    member = np.zeros((len(chosen), n_blocks))
    np.put_along_axis(member, chosen, 1.0, axis=1)
    return member


def _sharpes(
    member_CS: FloatArray, mean_SN: FloatArray, square_SN: FloatArray, scatter_SN: FloatArray, length: int
) -> FloatArray:
    """Returns (split, trial) Sharpe ratios of the member blocks; NaN where a constant, not idle, half has none.

    The blocks enter through their means, these squared, and their sums of squares about them, each (block, trial).
    """
    blocks = member_CS.shape[1] // 2
    mean = member_CS @ mean_SN / blocks
    between = length * (member_CS @ square_SN - blocks * mean**2)
    variance = (member_CS @ scatter_SN + between) / (blocks * length - 1)
    sd = np.sqrt(np.maximum(variance, 0.0))
    # `between` is a difference of squares: a constant half leaves a rounding rest of about 1e-8 of its mean.
    flat = sd <= np.maximum(1e-12, 1e-7 * np.abs(mean))
    # A half without a trade neither earned nor risked anything: 0 ranks it between winners and losers.
    idle = flat & (np.abs(mean) <= 1e-12)
    return np.asarray(np.where(idle, 0.0, mean / np.where(flat, np.nan, sd)), dtype=np.float64)


def _rank_of_the_best(
    inside: FloatArray, outside: FloatArray, best_in: FloatArray, copies: NDArray[np.intp]
) -> tuple[FloatArray, FloatArray]:
    """Returns (split,) the out-of-sample rank of the in-sample best and its Sharpe ratio there, averaged over ties.

    Takes distinct series, (split, series), and how many trials have each: counting those below the best says its
    rank without putting all of them in order.
    """
    alone = inside.argmax(axis=1)[:, np.newaxis]
    best_out = np.take_along_axis(outside, alone, axis=1)
    below, level = _trials(outside < best_out, copies), _trials(outside == best_out, copies)
    rank, out = below + (level + 1.0) / 2.0, best_out[:, 0]
    tied = np.flatnonzero(np.count_nonzero(inside == best_in[:, np.newaxis], axis=1) > 1)
    if tied.size:
        every = np.repeat(np.arange(len(copies)), copies)
        weight = (inside[tied] == best_in[tied, np.newaxis])[:, every]
        ranks, values = rankdata(outside[tied][:, every], axis=1), outside[tied][:, every]
        rank[tied] = (ranks * weight).sum(axis=1) / weight.sum(axis=1)
        out[tied] = (values * weight).sum(axis=1) / weight.sum(axis=1)
    return rank, out


def _trials(which: NDArray[np.bool_], copies: NDArray[np.intp]) -> FloatArray:
    single = copies.max() == 1
    return np.asarray(np.count_nonzero(which, axis=1) if single else which @ copies, dtype=np.float64)


def overfitting_in_blocks(returns_TN: FloatArray) -> BacktestOverfitting:
    """Returns the probability of backtest overfitting in as many blocks as bars and candidates leave room for.

    16 blocks where there are two bars for each of them, and fewer where so many candidates (thousands) would take
    long; `n_splits` says how many it were.

    Raises:
        DataError: there are too few bars or candidates, or one has a constant return.
    """
    trials = returns_TN.shape[1]
    blocks = min(BLOCKS, len(returns_TN) // _BARS_A_BLOCK // 2 * 2)
    if blocks < 2 or trials < 2:
        raise DataError(f"overfitting needs two candidates with bars on the same window but there are {trials}")
    while blocks > 2 and trials * math.comb(blocks, blocks // 2) > _MOST_RATIOS:
        blocks -= 2
    return probability_of_backtest_overfitting(returns_TN, blocks)


def probability_of_backtest_overfitting(returns_TN: ArrayLike, n_splits: int = 16) -> BacktestOverfitting:
    """Returns how often the trial chosen on half of the history disappoints on the other half.

    The trials are judged by the Sharpe ratio (ddof 1). Out-of-sample ties share their average rank; trials
    tied for the in-sample best are averaged, so the order of the columns does not matter. Under pure noise
    the probability averages one half but spreads widely (about 0.18): it has no nominal rate.

    Args:
        returns_TN: (time, trial), aligned bar returns of **all** candidates on the same bars, finite; at
            least two trials and two bars a block. A trial without trades over a half has the Sharpe ratio 0
            there.
        n_splits: S, the number of blocks, even, from 2 to 20. 16 gives 12,870 splits.

    Raises:
        DataError: a wrong shape, too few bars or trials, NaN, an odd or too large `n_splits`, or a trial with
            a constant return other than 0.
    """
    blocks = whole_number(n_splits, "n_splits", 2)
    if blocks % 2 or blocks > _MOST_BLOCKS:
        raise DataError(f"n_splits must be even and at most {_MOST_BLOCKS} but got {blocks}")
    returns = finite_matrix(returns_TN, "returns_TN", ("time", "trial"), (2 * blocks, 2))
    dropped = len(returns) % blocks
    # Copies of one series must tie exactly, which a matrix product over both does not promise: compute each
    # once.
    distinct, source = np.unique(returns[dropped:], axis=1, return_inverse=True)
    blocks_SLN = distinct.reshape(blocks, -1, distinct.shape[1])
    length = blocks_SLN.shape[1]
    mean_SN = blocks_SLN.mean(axis=1)
    square_SN = mean_SN**2
    scatter_SN = np.square(blocks_SLN - mean_SN[:, np.newaxis]).sum(axis=1)

    trials = returns.shape[1]
    member_CS = _memberships(blocks)
    rank = np.empty(len(member_CS))
    best_in, best_out = np.empty_like(rank), np.empty_like(rank)
    copies = np.bincount(source.ravel())
    chunk = max(1, _CHUNK_VALUES // len(copies))
    for start in range(0, len(rank), chunk):
        part = slice(start, start + chunk)
        inside = _sharpes(member_CS[part], mean_SN, square_SN, scatter_SN, length)
        outside = _sharpes(1.0 - member_CS[part], mean_SN, square_SN, scatter_SN, length)
        best_in[part] = inside.max(axis=1)
        if np.isnan(best_in[part]).any() or np.isnan(outside).any():
            holed = np.asarray(np.isnan(inside + outside).any(axis=0))
            undefined = np.flatnonzero(holed[source.ravel()])
            raise DataError(
                f"returns_TN is constant and not 0 over half of the blocks in {undefined.size} columns (the first "
                f"is {undefined[0]}): a Sharpe ratio is undefined there, leave them out"
            )
        rank[part], best_out[part] = _rank_of_the_best(inside, outside, best_in[part], copies)

    logits = np.log(rank) - np.log(trials + 1 - rank)
    spread = best_in - best_in.mean()
    varies = float(np.ptp(best_in)) > 1e-12 * max(1.0, float(np.abs(best_in).max()))
    return BacktestOverfitting(
        pbo=float(np.mean(logits <= 0.0)),
        logits=logits,
        probability_of_loss=float(np.mean(best_out < 0.0)),
        slope=float(spread @ best_out / (spread @ spread)) if varies else None,
        in_sample_sharpe=best_in,
        out_of_sample_sharpe=best_out,
        n_splits=blocks,
        dropped_rows=dropped,
    )
