"""Every picture of one run, and its table of symbols, from what is known of it, into a folder of its artifacts.

Run as `python -m drl_ray_tracking.analysis.trial_pictures MATERIAL FOLDER`, in a process of its own at the lowest
priority that talks to no store. MATERIAL holds `run.json` (`tags`, and `points`: metric -> [step, value, Unix ms]
each) and, where the run was evaluated, its series. Exit code 1 where a picture failed that should not.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from drl_ray_tracking import names
from drl_ray_tracking.analysis.equity import evaluation_at
from drl_ray_tracking.analysis.histories import History, histories_frame, parse_attempts
from drl_ray_tracking.errors import TrackingError

_CPU_LIMIT_S: Final = 300
Drawing = Callable[[], Any]  # makes a figure


@dataclass(frozen=True, eq=False)
class Material:
    """What there is to draw of a run.

    Attributes:
        name: the run's.
        objective: the metric that its sweep is about; None where unknown.
        histories: metric -> values that count, index env steps.
        bars: its last evaluation; None where there is none.
        best, worst: its best and worst evaluation episode, one each; None where there are none.
    """

    name: str
    objective: str | None
    histories: Mapping[str, pd.Series[float]]
    bars: pd.DataFrame | None = None
    best: pd.DataFrame | None = None
    worst: pd.DataFrame | None = None

    @classmethod
    def read(cls, folder: Path) -> Material:
        """Reads what `tracking.painter` was given.

        Raises:
            OSError, ValueError, KeyError: it is not that.
        """
        told = json.loads((folder / names.MATERIAL_FILE).read_text(encoding="utf-8"))
        tags: Mapping[str, str] = told["tags"]
        try:
            attempts = parse_attempts(tags.get(names.TAG_ATTEMPTS))
        except ValueError:  # somebody edited the tag: superseded points are drawn, too
            attempts = ()
        raw = [
            History("", metric, *(np.array([point[place] for point in points]) for place in range(3)))
            for metric, points in told["points"].items()
        ]
        histories = {
            str(metric): pd.Series(points["value"].to_numpy(), index=pd.Index(points["step"], name="step"))
            for metric, points in histories_frame(raw, {"": attempts}).groupby("metric", observed=True)
        }
        objective = tags.get(names.TAG_OBJECTIVE)
        return cls(
            name=tags.get("mlflow.runName", "run"),
            objective=names.mlflow_name(objective) if objective else None,
            histories=histories,
            bars=_last_evaluation(folder / names.SERIES_FILE),
            best=_episode(folder / names.BEST_EPISODE_FILE),
            worst=_episode(folder / names.WORST_EPISODE_FILE),
        )


def _last_evaluation(path: Path) -> pd.DataFrame | None:
    """Reads the last evaluation only: a long run's bars would not all fit into memory."""
    import pyarrow.parquet as pq

    if not path.is_file():
        return None
    last = max(pq.read_table(path, columns=["step"]).column("step").unique().to_pylist(), default=None)
    return None if last is None else evaluation_at(pd.read_parquet(path, filters=[("step", "=", last)]))


def _episode(path: Path) -> pd.DataFrame | None:
    return pd.read_parquet(path) if path.is_file() else None


def draw(material: Material, folder: Path) -> dict[str, str]:
    """Draws what can be drawn and returns why the rest cannot be, by file.

    Args:
        material: of the run.
        folder: laid out as the run's artifacts are.

    Raises:
        ExceptionGroup: drawings that failed although they should not; the others are there all the same.
    """
    pictures = folder / names.PICTURES_ARTIFACT
    pictures.mkdir(parents=True, exist_ok=True)
    missing: dict[str, str] = {}
    failures: list[Exception] = []
    for file, figure in _drawings(material).items():
        try:
            figure().savefig(pictures / file)
        except TrackingError as error:
            missing[file] = str(error)
        except Exception as error:  # noqa: BLE001 - the other pictures are drawn all the same
            error.add_note(f"while drawing {file}")
            failures.append(error)
    if material.bars is not None:
        from drl_ray_tracking.analysis.symbol_table import symbol_table

        symbol_table(material.bars).to_csv(folder / names.SYMBOLS_ARTIFACT, index=False)
    if failures:
        raise ExceptionGroup("pictures failed", failures)
    return missing


def _drawings(material: Material) -> dict[str, Drawing]:
    """Returns a drawing for each file."""
    from drl_ray_tracking.analysis.action_mix import action_mix
    from drl_ray_tracking.analysis.trace import trace_of
    from drl_ray_tracking.analysis.trade_chart import trade_chart
    from drl_ray_tracking.analysis.trial_curves import trial_curves

    name, bars, best, worst = material.name, material.bars, material.best, material.worst
    drawings: dict[str, Drawing] = {
        "learning_curves.png": lambda: trial_curves(material.histories, name, material.objective),
        "action_mix.png": lambda: action_mix(material.histories, bars, name),
    }
    if bars is not None:
        drawings |= evaluation_drawings(lambda: bars, name)
    if best is not None:
        drawings["trades_best_episode.png"] = lambda: trade_chart(trace_of(best), f"{name}: best evaluation episode")
    if worst is not None and best is not None and not worst.equals(best):
        drawings["trades_worst_episode.png"] = lambda: trade_chart(trace_of(worst), f"{name}: worst evaluation episode")
    return drawings


def evaluation_drawings(bars: Callable[[], pd.DataFrame], heading: str) -> dict[str, Drawing]:
    """Returns a drawing for each file about one evaluation.

    Args:
        bars: returns it, as `evaluation_at` does; called for each picture.
        heading: what it is, such as a run's name.
    """
    from drl_ray_tracking.analysis.plots import equity_figure
    from drl_ray_tracking.analysis.return_pictures import monthly_returns, return_distribution

    return {
        "equity_curve.png": lambda: equity_figure(bars(), heading),
        "return_distribution.png": lambda: return_distribution(bars(), heading),
        "monthly_returns.png": lambda: monthly_returns(bars(), heading),
    }


def main() -> None:
    """Runs the command."""
    os.nice(19)
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_LIMIT_S, _CPU_LIMIT_S))
    material, folder = map(Path, sys.argv[1:3])
    try:
        for file, reason in draw(Material.read(material), folder).items():
            sys.stderr.write(f"{file}: {reason}\n")
    except Exception:  # noqa: BLE001 - whatever it is, the last line is what the courier's log shows
        traceback.print_exc()
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
