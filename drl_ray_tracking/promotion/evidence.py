"""What a sweep's evaluations say about a candidate: how many there were, how they vary, whether choosing overfits.

On a test window the tries are the looks at it, since nothing was chosen there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drl_ray_tracking.analysis.selection import deflated_sharpe_ratio
from drl_ray_tracking.analysis.tries import Tries
from drl_ray_tracking.errors import DataError
from drl_ray_tracking.promotion.gates import Evidence


def evidence_of(
    kpis: Mapping[str, float], stressed: Mapping[str, float] | None, tries: Tries, *, looks: int | None = None
) -> Evidence:
    """Returns what the gates judge.

    Args:
        kpis: of the candidate's backtest.
        stressed: of its backtest under higher costs; None where its environment has no costs that can be raised.
        tries: what it was chosen from.
        looks: on a test window, how often it was looked at, this time included; None on the validation window.
    """
    missing: dict[str, str] = {}

    def known(name: str, values: Mapping[str, float], key: str) -> float | None:
        value = values.get(f"trading/{key}")
        if value is None:
            missing[name] = _reason(values, key)
        return value

    def computed(name: str, value: Any) -> float | None:
        try:
            return float(value())
        except DataError as error:
            missing[name] = str(error)
            return None

    def deflated() -> float:
        moments = [known("deflated_sharpe", kpis, key) for key in ("sharpe_per_period", "bars", "skewness", "kurtosis")]
        if None in moments:
            raise DataError(missing["deflated_sharpe"])
        sharpe, bars, skewness, kurtosis = (float(moment or 0.0) for moment in moments)
        n_trials = max(1, tries.looked_at if looks is None else looks)
        variance = tries.sharpe_variance if n_trials > 1 else 0.0
        return deflated_sharpe_ratio(sharpe, bars, skewness, kurtosis, n_trials, variance)

    if stressed is None:
        missing["stressed_sharpe"] = "the sweep's env sets neither `fee` nor `slippage`, so no cost can be raised"
    return Evidence(
        trades=known("trades", kpis, "trades"),
        deflated_sharpe=computed("deflated_sharpe", deflated),
        pbo=computed("pbo", lambda: tries.overfitting.pbo),
        drawdown=known("drawdown", kpis, "max_drawdown"),
        stressed_sharpe=None if stressed is None else known("stressed_sharpe", stressed, "sharpe"),
        missing=missing,
    )


def _reason(values: Mapping[str, float], key: str) -> str:
    """Returns why a KPI is undefined, as its summary counted it."""
    prefix = f"undefined/trading/{key}/"
    reasons = [name.removeprefix(prefix) for name in values if name.startswith(prefix)]
    return f"trading/{key} is undefined: {', '.join(reasons) or 'nothing was traded'}"
