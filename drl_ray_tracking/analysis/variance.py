"""Where the differences between scores come from: hyperparameters, seeds or market windows.

A random-effects analysis of variance. Seeds are nested in groups (seed 3 of one group shares nothing with
seed 3 of another but its number); windows are crossed with both, since every run is scored on every window:

    score = mean + group + seed(group) + window + group x window + residual

Source: Searle, Casella, McCulloch, "Variance Components", 1992: mean squares are set equal to their
expectations (Henderson's method I). On balanced data these are the classical ANOVA estimates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from drl_ray_tracking.analysis.inputs import FloatArray, finite_matrix
from drl_ray_tracking.errors import DataError


@dataclass(frozen=True)
class VarianceComponents:
    """Estimated variances, in the squared unit of the scores.

    Attributes:
        group: between groups (hyperparameters), what tuning can win.
        seed: between seeds of one group. With a single window it includes the residual.
        window: between market windows; None with a single window.
        group_window: groups that suit some windows better than others; None with a single window.
        residual: what is left; None with a single window.
        clipped: the raw estimates that came out negative and were set to 0, by attribute name. A negative
            estimate says that the component is small against its uncertainty.
    """

    group: float
    seed: float
    window: float | None
    group_window: float | None
    residual: float | None
    clipped: Mapping[str, float]

    def shares(self) -> dict[str, float]:
        """Returns each component that exists as its share of their sum; empty where all are zero."""
        named = {
            "group": self.group,
            "seed": self.seed,
            "window": self.window,
            "group_window": self.group_window,
            "residual": self.residual,
        }
        present = {name: value for name, value in named.items() if value is not None}
        total = sum(present.values())
        return {name: value / total for name, value in present.items()} if total > 0.0 else {}


def _checked(scores: ArrayLike | Sequence[ArrayLike]) -> list[FloatArray]:
    try:
        given = list(scores)  # type: ignore[arg-type]
    except TypeError as error:
        raise DataError(f"scores must hold one (seed, window) array per group but got {scores!r}") from error
    groups = [finite_matrix(group, f"scores[{index}]", ("seed", "window")) for index, group in enumerate(given)]
    if len(groups) < 2:
        raise DataError(f"scores must have at least 2 groups but got {len(groups)}")
    windows = sorted({group.shape[1] for group in groups})
    if len(windows) > 1:
        raise DataError(f"scores must have the same windows in every group but got {windows} columns")
    if all(len(group) == 1 for group in groups):
        raise DataError("scores has one seed per group: at least one group needs 2 to tell seeds from groups")
    return groups


def variance_components(scores: ArrayLike | Sequence[ArrayLike]) -> VarianceComponents:
    """Splits the variance of scores into hyperparameter group, seed and market window.

    Args:
        scores: a (group, seed, window) array, or a sequence of one (seed, window) array per group where the
            numbers of seeds differ. Every run has a score on every window, in the same column order. At least
            two groups, one of them with two seeds; finite.

    Raises:
        DataError: a wrong shape, too few groups or seeds, different windows, or NaN.
    """
    groups = _checked(scores)
    sizes = np.array([len(group) for group in groups], dtype=np.float64)
    runs, n_groups, windows = float(sizes.sum()), len(groups), groups[0].shape[1]
    # What one group's variance weighs in the mean squares: the plain number of seeds where it is the same
    # everywhere.
    own = float((sizes**2).sum() / runs)
    typical = (runs - own) / (n_groups - 1)

    cell_GW = np.array([group.mean(axis=0) for group in groups])
    group_G = cell_GW.mean(axis=1)
    window_W = sizes @ cell_GW / runs
    grand = float(window_W.mean())
    seed_deviations = [group.mean(axis=1) - mean for group, mean in zip(groups, group_G, strict=True)]

    ms_group = windows * float(sizes @ (group_G - grand) ** 2) / (n_groups - 1)
    ms_seed = windows * float(sum(d @ d for d in seed_deviations)) / (runs - n_groups)
    raw: dict[str, float]
    if windows == 1:
        raw = {"group": (ms_group - ms_seed) / typical, "seed": ms_seed}
    else:
        residuals = [
            group - cell - deviation[:, np.newaxis]
            for group, cell, deviation in zip(groups, cell_GW, seed_deviations, strict=True)
        ]
        interaction_GW = cell_GW - group_G[:, np.newaxis] - window_W + grand
        ms_residual = sum(float(np.sum(r**2)) for r in residuals) / ((runs - n_groups) * (windows - 1))
        ms_both = float(sizes @ (interaction_GW**2).sum(axis=1)) / ((n_groups - 1) * (windows - 1))
        ms_window = runs * float(np.sum((window_W - grand) ** 2)) / (windows - 1)
        both = (ms_both - ms_residual) / typical
        raw = {
            "group": (ms_group - ms_seed - ms_both + ms_residual) / (typical * windows),
            "seed": (ms_seed - ms_residual) / windows,
            "window": (ms_window - ms_residual - own * both) / runs,
            "group_window": both,
            "residual": ms_residual,
        }
    kept = {name: max(0.0, value) for name, value in raw.items()}
    return VarianceComponents(
        group=kept["group"],
        seed=kept["seed"],
        window=kept.get("window"),
        group_window=kept.get("group_window"),
        residual=kept.get("residual"),
        clipped={name: value for name, value in raw.items() if value < 0.0},
    )
