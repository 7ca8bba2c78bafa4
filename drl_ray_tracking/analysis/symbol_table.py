"""A row for each symbol of an evaluation: what was earned there, at what risk, beside buying and holding."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from drl_ray_tracking.analysis.trace import Trace, traces
from drl_ray_tracking.episodes import EpisodeSummary
from drl_ray_tracking.episodes.summary import merge_all

_KPIS: Final = (
    "total_return",
    "sharpe",
    "sortino",
    "volatility",
    "max_drawdown",
    "trades",
    "win_rate",
    "profit_factor",
    "exposure",
    "fees",
)
COLUMNS: Final = ("symbol", "windows", "bars", "buy_and_hold", *_KPIS)


def symbol_table(bars: pd.DataFrame) -> pd.DataFrame:
    """Measures an evaluation symbol by symbol, by the definitions of every other KPI; of several agents each.

    Args:
        bars: one evaluation, as `evaluation_at` returned it.

    Returns:
        Columns `COLUMNS`; returns are compounded over a symbol's windows, the worst drawdown is of one of them;
        missing where undefined.
    """
    by_symbol: dict[str, list[Trace]] = {}
    for trace in traces(bars):
        name = " ".join(part for part in (trace.labels.get("symbol", ""), trace.labels.get("agent", "")) if part)
        by_symbol.setdefault(name, []).append(trace)
    return pd.DataFrame([_row(name, windows) for name, windows in sorted(by_symbol.items())], columns=list(COLUMNS))


def _row(name: str, windows: list[Trace]) -> dict[str, object]:
    kpis = merge_all([EpisodeSummary.of(trace.record()) for trace in windows]).compute()
    hold = [trace.hold_return for trace in windows]
    known = [value for value in hold if value is not None]
    row: dict[str, object] = {
        "symbol": name,
        "windows": len(windows),
        "bars": sum(len(trace.position) for trace in windows),
        "buy_and_hold": float(np.prod([1.0 + value for value in known]) - 1.0) if len(known) == len(hold) else np.nan,
    }
    return row | {kpi: kpis.get(f"trading/{kpi}", np.nan) for kpi in _KPIS}
