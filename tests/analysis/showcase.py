"""A search with everything a report can show: many configurations, three seeds each, PBT, alerts, hostile names.

`python -m tests.analysis.showcase FOLDER` writes its report, to be looked at.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import pandas as pd

from drl_ray_tracking import names
from drl_ray_tracking.analysis.budget import Look, WindowBudget
from drl_ray_tracking.analysis.comparison import Comparison
from drl_ray_tracking.analysis.runset import RunSet, Unreadable
from tests.analysis.kept import Kept

HOSTILE = "<img src=x onerror=alert(1)>"
METRIC = names.DEFAULT_METRIC
_BARS = 400
_EVALUATIONS = 8


def showcase(configurations: int = 12, seeds: int = 3) -> RunSet:
    """Returns finished runs, and one that failed, one that runs, and one that never traded at last."""
    rng = np.random.default_rng(11)
    market = 0.0004 + 0.011 * rng.normal(size=_BARS)
    rows: dict[str, dict[str, Any]] = {}
    points: list[tuple[str, str, int, float, int]] = []
    series: dict[str, pd.DataFrame] = {}
    for number in range(configurations):
        lr, activation = 10.0 ** rng.uniform(-4.5, -2.0), ("relu", "tanh")[number % 2]
        gamma = round(float(rng.uniform(0.9, 0.999)), 4)
        skill = 0.05 - 0.03 * abs(np.log10(lr) + 3.3)
        for seed in range(1, seeds + 1):
            run_id = f"{number:02}{seed}".rjust(32, "0")
            rows[run_id] = {
                "name": HOSTILE if (number, seed) == (0, 1) else f"ppo-ACME-1d-s{seed}-{number:06x}",
                "status": "FINISHED", "start_ms": 1_700_000_000_000, "end_ms": 1_700_000_900_000,
                "parent_run_id": "f" * 32, "sweep_id": "sweep", "trial_id": f"t{number:02}_{seed}",
                "config_hash": f"{number:06x}abcdef", "seed": str(seed), "algorithm": "PPO", "env": "TradingEnv",
                "symbols": "ACME", "timeframe": "1d", "data_digest": "d", "window_id": "w", "experiment_id": "1",
                "param.lr": f"{lr:.6f}", "param.gamma": str(gamma), "param.seed": str(seed),
                "param.model/activation": HOSTILE if number == 1 else activation,
            }  # fmt: skip
            series[run_id] = _series(rng, market, skill + 0.02 * rng.normal())
            for step, sharpe in _sharpes(series[run_id]):
                points.append((run_id, METRIC, step, sharpe, step))
                points.append((run_id, names.EVALUATION_MARKER, step, float(step), step))
    ids = list(rows)
    rows[ids[3]]["status"] = "FAILED"
    rows[ids[4]]["status"] = "RUNNING"
    rows[ids[6]]["alert.collapsed"] = "6000"
    rows[ids[7]]["alert.learning_rate"] = "2000"
    for receiver, donor, step in ((9, 0, 4000), (10, 9, 6000), (12, 0, 6000)):
        entry = [1_700_000_000_000 + step, step, rows[ids[donor]]["trial_id"], ["lr"]]
        rows[ids[receiver]]["lineage"] = json.dumps([entry])
    points.append((ids[8], names.EVALUATION_MARKER, 9000, 9000.0, 9000))  # and undefined there
    frame = pd.DataFrame(rows.values(), index=pd.Index(ids, name="run_id"))
    looks = (Look("ada", 1_700_001_000_000, "promotion"), Look(HOSTILE, 1_700_002_000_000, HOSTILE))
    return RunSet(
        runs=frame,
        histories=pd.DataFrame(points, columns=["run_id", "metric", "step", "value", "time_ms"]),
        tracking_uri="http://ada:secret@mlflow.example:5000/",
        unreadable=(Unreadable(ids[5], f"disk on fire {HOSTILE}"),),
        notes=(f"a note about {HOSTILE}",),
        metrics=(METRIC, names.EVALUATION_MARKER),
        loaded=frozenset({METRIC, names.EVALUATION_MARKER}),
        source=Kept(series),
        test_evaluations=2,
        test_windows={"w-test": WindowBudget(2, looks)},
    )


def _series(rng: np.random.Generator, market: np.ndarray, skill: float) -> pd.DataFrame:
    parts = []
    for number in range(1, _EVALUATIONS + 1):
        position = (rng.random(_BARS) < 0.6).astype(float)
        fee = 0.0005 * np.abs(np.diff(position, prepend=0.0))
        own = position * market + 0.011 * skill * number / _EVALUATIONS + 0.002 * rng.normal(size=_BARS) - fee
        equity = np.concatenate([[1e4], 1e4 * np.cumprod(1.0 + own)])
        parts.append(
            pd.DataFrame(
                {
                    "iteration": number, "step": 1000 * number, "episode": 0, "symbol": HOSTILE, "window": "0",
                    "split": "validation", "bar": np.arange(_BARS + 1),
                    "timestamp": 1.5e9 + 86400.0 * np.arange(_BARS + 1), "equity": equity,
                    "price": np.concatenate([[100.0], 100.0 * np.cumprod(1.0 + market)]),
                    "fee": np.concatenate([[np.nan], fee * equity[:-1]]),
                }
            )
        )  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def _sharpes(series: pd.DataFrame) -> list[tuple[int, float]]:
    found = []
    for step, bars in series.groupby("step"):
        returns = bars["equity"].pct_change().dropna()
        found.append((int(str(step)), float(returns.mean() / returns.std() * np.sqrt(252))))
    return found


def compared(runs: RunSet) -> Comparison:
    """Returns their comparison with its verdict."""
    from drl_ray_tracking.analysis.compare import compare
    from drl_ray_tracking.analysis.verdict import judged

    return judged(compare(runs), runs, runs)


if __name__ == "__main__":
    from drl_ray_tracking.analysis.publish import write_report

    shown = showcase()
    print(write_report(compared(shown), shown, sys.argv[1], "showcase"))
