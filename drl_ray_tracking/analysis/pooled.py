"""A walk-forward's out-of-sample bars, pooled: each bar once, in time, over all folds; and what each agent is worth.

Nothing was chosen on these bars but which agent to call the best of them: that is what the verdict corrects for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from drl_ray_tracking.analysis.selection import deflated_sharpe_ratio, skewness_and_kurtosis
from drl_ray_tracking.episodes.trading import max_drawdown, sharpe_ratio
from drl_ray_tracking.errors import DataError

ASKED_FOR = 0.95


@dataclass(frozen=True, eq=False)
class OutOfSample:
    """One trained agent's bars on one fold's test window.

    Attributes:
        agent: what it is called, over all folds and seeds.
        seed, fold: which of its trainings.
        returns: net return of each bar, indexed by the time the bar ended.
        hold: of holding the instrument, over the same bars; None without prices.
    """

    agent: str
    seed: int
    fold: int
    returns: pd.Series[float]
    hold: pd.Series[float] | None = None


@dataclass(frozen=True, eq=False)
class PooledAgent:
    """An agent over all folds.

    Attributes:
        agent: what it is called.
        returns: (bar, seed) net returns on the unique bars, in time.
        hold: (bar,) of holding the instrument; None without prices.
        folds: (fold, seed) Sharpe ratio of each fold and seed, annualised.
        periods_per_year: for annualising.
        deflated: probability that its pooled Sharpe ratio is better than luck, given how many tries there were;
            None where it is not defined.
        compared: how many: agents, or looks at these bars where those are more.
    """

    agent: str
    returns: pd.DataFrame
    hold: pd.Series[float] | None
    folds: pd.DataFrame
    periods_per_year: float
    deflated: float | None
    compared: int

    @property
    def mean(self) -> pd.Series[float]:
        """The returns of holding every seed's agent in equal parts, set anew each bar."""
        return self.returns.mean(axis=1)

    def kpis(self) -> dict[str, float]:
        """Returns its pooled KPIs; one that is not defined is not there."""
        mean = self.mean.to_numpy()
        seeds = [
            sharpe_ratio(self.returns[seed].to_numpy(), periods_per_year=self.periods_per_year) for seed in self.returns
        ]
        found = {
            "sharpe": sharpe_ratio(mean, periods_per_year=self.periods_per_year),
            "total_return": float(np.prod(1.0 + mean) - 1.0),
            "max_drawdown": max_drawdown(mean),
            "bars": float(len(mean)),
            "folds_in_profit": float((self.fold_returns() > 0.0).mean()),
            "sharpe_worst_seed": min(filter(math.isfinite, seeds), default=math.nan),
            "sharpe_best_seed": max(filter(math.isfinite, seeds), default=math.nan),
            "deflated_sharpe": math.nan if self.deflated is None else self.deflated,
        }
        return {key: value for key, value in found.items() if math.isfinite(value)}

    def fold_returns(self) -> pd.Series[float]:
        """Returns the total return of each fold, of the mean over seeds."""
        labels = self.returns.attrs["fold"]
        return (1.0 + self.mean).groupby(labels).prod() - 1.0

    @property
    def accepted(self) -> bool:
        """Whether it is better than luck."""
        return self.deflated is not None and self.deflated > ASKED_FOR

    def verdict(self) -> str:
        """Says in words what may be concluded."""
        kpis = self.kpis()
        won = int((self.fold_returns() > 0.0).sum())
        told = (
            f"{int(kpis['bars'])} unique out-of-sample bars, Sharpe ratio {kpis.get('sharpe', math.nan):.2f}, return "
            f"{kpis['total_return']:+.1%}, {won} of {len(self.fold_returns())} folds in profit"
        )
        if self.deflated is None:
            why = (
                f"these bars were looked at {self.compared} times, and how tries vary is not known"
                if "sharpe" in kpis
                else "its returns do not vary"
            )
            return f"undecided: {told}; {why}"
        luck = f"better than the luck of {self.compared} tries with probability {self.deflated:.2f}"
        return f"{'accepted' if self.accepted else 'not accepted'}: {told}; {luck}, {ASKED_FOR} is asked for"


def pool(
    parts: Sequence[OutOfSample],
    *,
    periods_per_year: Mapping[str, float],
    looks: Mapping[str, int] | None = None,
    variance: float | None = None,
) -> tuple[PooledAgent, ...]:
    """Pools every agent's folds, the best by pooled Sharpe ratio first.

    Args:
        parts: one for each agent, seed and fold.
        periods_per_year: of each agent's bars.
        looks: how often each agent's test bars were looked at, this time included; None counts the agents alone.
        variance: over tries, of the per-bar Sharpe ratio, where there is one agent: several tell it themselves.

    Raises:
        DataError: a bar appears twice for one seed, or seeds have different bars; says which.
    """
    if not parts:
        raise DataError("there are no out-of-sample bars to pool")
    agents = list(dict.fromkeys(part.agent for part in parts))
    tables = {agent: _joined(agent, [part for part in parts if part.agent == agent]) for agent in agents}
    per_bar = {agent: _per_bar(table.mean(axis=1)) for agent, (table, _) in tables.items()}
    # One that never traded was a candidate, too: its ratio is 0, as in `tries`.
    sharpes = [value or 0.0 for value in per_bar.values()]
    spread = float(np.var(sharpes, ddof=1)) if len(sharpes) > 1 else variance
    pooled = []
    for agent in agents:
        table, hold = tables[agent]
        periods, sharpe = periods_per_year[agent], per_bar[agent]
        folds = pd.DataFrame(
            {
                part.seed: pd.Series(dtype=float)
                for part in sorted((one for one in parts if one.agent == agent), key=lambda one: one.seed)
            }
        )
        for part in parts:
            if part.agent == agent:
                folds.loc[part.fold, part.seed] = sharpe_ratio(part.returns.to_numpy(), periods_per_year=periods)
        tries = max(len(agents), (looks or {}).get(agent, 0))
        deflated = None if sharpe is None else _deflated(table.mean(axis=1), sharpe, tries, spread)
        pooled.append(PooledAgent(agent, table, hold, folds.sort_index(), periods, deflated, tries))
    return tuple(sorted(pooled, key=lambda one: -one.kpis().get("sharpe", -math.inf)))


def _joined(agent: str, parts: Sequence[OutOfSample]) -> tuple[pd.DataFrame, pd.Series[float] | None]:
    columns: dict[int, pd.Series[float]] = {}
    labels: pd.Series[int] | None = None
    hold: pd.Series[float] | None = None
    for seed in sorted({part.seed for part in parts}):
        mine = sorted((part for part in parts if part.seed == seed), key=lambda part: part.fold)
        column = pd.concat([part.returns for part in mine])
        index = column.index
        if not index.is_unique:
            raise DataError(f"{agent}, seed {seed}: the bar {index[index.duplicated()][0]} is in two test windows")
        if not index.is_monotonic_increasing:
            raise DataError(f"{agent}, seed {seed}: the folds' test windows are not one after the other in time")
        if labels is None:
            labels = pd.concat([pd.Series(part.fold, index=part.returns.index) for part in mine])
            if all(part.hold is not None for part in mine):
                hold = pd.concat([part.hold for part in mine if part.hold is not None])
        elif not index.equals(labels.index):
            raise DataError(f"{agent}: seed {seed} has {len(index)} out-of-sample bars, others have {len(labels)}")
        columns[seed] = column
    table = pd.DataFrame(columns)
    table.attrs["fold"] = labels
    return table, hold


def _per_bar(returns: pd.Series[float]) -> float | None:
    value = sharpe_ratio(returns.to_numpy(), periods_per_year=1.0)
    return value if math.isfinite(value) else None


def _deflated(returns: pd.Series[float], sharpe: float, tries: int, variance: float | None) -> float | None:
    if tries > 1 and variance is None:
        return None
    values = returns.to_numpy()
    try:
        return deflated_sharpe_ratio(sharpe, len(values), *skewness_and_kurtosis(values), tries, variance or 0.0)
    except DataError:  # the moments of few bars may contradict each other
        return None


def pooled_table(agents: Sequence[PooledAgent]) -> pd.DataFrame:
    """Returns a row an agent: its pooled KPIs and its verdict."""
    return pd.DataFrame([{"agent": one.agent, **one.kpis(), "verdict": one.verdict()} for one in agents])


def fold_table(agents: Sequence[PooledAgent]) -> pd.DataFrame:
    """Returns a row for each agent, fold and seed: the Sharpe ratio on its test window."""
    rows = [
        {"agent": one.agent, "fold": fold, "seed": seed, "test/sharpe": value}
        for one in agents
        for seed, column in one.folds.items()
        for fold, value in column.items()
    ]
    return pd.DataFrame(rows)
