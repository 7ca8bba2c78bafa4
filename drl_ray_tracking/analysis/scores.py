"""Scores of groups: rows are seeds, columns market windows.

Neither episodes nor iterations of one seed are independent, so they never are rows. Where every seed of every group
was scored on the same windows (walk-forward folds, several markets), each window is a column of its own; else a seed
has one score, the mean over its runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from drl_ray_tracking.analysis.inputs import FloatArray


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores by group, and the windows that are their columns: empty where a seed has one score."""

    of: Mapping[str, FloatArray]
    windows: tuple[str, ...]

    def seeds(self, group: str) -> FloatArray:
        """Returns each seed's mean over the windows."""
        return np.asarray(self.of[group].mean(axis=1), dtype=np.float64)


def scores_of(values: pd.DataFrame) -> Scores:
    """Returns the scores of each group.

    Args:
        values: index `run_id`; columns `group`, `seed` (missing: the run stands for a seed of its own), `window`
            (missing: not known) and `value`, finite.
    """
    seeds = values["seed"].astype("object").where(values["seed"].notna(), pd.Series(values.index, index=values.index))
    windows = sorted(str(window) for window in values["window"].dropna().unique())
    if len(windows) > 1 and values["window"].notna().all():
        cells = values["value"].groupby([values["group"], seeds, values["window"]]).mean().unstack()
        if cells.notna().all(axis=None):
            of = {str(group): part.to_numpy(dtype=np.float64) for group, part in cells.groupby(level=0)}
            return Scores(of, tuple(windows))
    single = values["value"].groupby([values["group"], seeds]).mean()
    columns = {str(group): part.to_numpy(dtype=np.float64)[:, None] for group, part in single.groupby(level=0)}
    return Scores(columns, ())
