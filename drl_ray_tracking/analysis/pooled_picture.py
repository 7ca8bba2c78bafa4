"""The picture of a walk-forward: every agent's equity over the pooled out-of-sample bars, folds marked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from drl_ray_tracking.analysis.canvas import name_ends, percent, signed_percent, single_axes, time_axis, title
from drl_ray_tracking.analysis.palette import FAINT, MUTED, colour_of
from drl_ray_tracking.analysis.pooled import PooledAgent


def pooled_equity(agents: Sequence[PooledAgent]) -> Figure:
    """Draws equity over the unique out-of-sample bars: thin lines are seeds, thick ones their equal-weighted mean.

    Args:
        agents: as `pool` returned them, at least one.
    """
    figure, axes = single_axes()
    ends = []
    for index, agent in enumerate(agents):
        colour = colour_of(index)
        growth = np.cumprod(1.0 + agent.returns.to_numpy(), axis=0) - 1.0
        times = agent.returns.index.to_numpy()
        axes.plot(times, growth, color=colour, lw=0.6, alpha=0.45)
        mean = np.cumprod(1.0 + agent.mean.to_numpy()) - 1.0
        axes.plot(times, mean, color=colour, lw=1.8)
        ends.append((times[-1], float(mean[-1]), f"{agent.agent} {signed_percent(float(mean[-1]))}", colour))
    first = agents[0]
    if first.hold is not None:
        hold = np.cumprod(1.0 + first.hold.to_numpy()) - 1.0
        axes.plot(first.hold.index.to_numpy(), hold, color=MUTED, lw=1.0, ls="--")
        ends.append((first.hold.index.to_numpy()[-1], float(hold[-1]), "buy and hold", MUTED))
    labels = first.returns.attrs["fold"]
    for begins in labels.index[labels.diff().fillna(0) != 0]:
        axes.axvline(begins, color=FAINT, lw=0.9, zorder=0)
    axes.yaxis.set_major_formatter(FuncFormatter(percent))
    time_axis(axes, True)
    name_ends(axes, ends)
    seeds = first.returns.shape[1]
    title(
        figure,
        "Out of sample, all folds pooled",
        f"{len(first.returns)} unique bars, {len(first.folds)} folds, {seeds} seed{'s' if seeds > 1 else ''} an agent; "
        "thin: each seed, thick: their mean; vertical lines: folds",
    )
    return figure
