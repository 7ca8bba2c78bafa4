"""Learning curves of one run: what it earned, how it did in evaluations, and how its learner fared."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from drl_ray_tracking.analysis.canvas import MARKED_UP_TO, drawable, name_ends, new_figure, steps_axis, style, title
from drl_ray_tracking.analysis.labels import cut
from drl_ray_tracking.analysis.palette import COLOURS, INK, MUTED
from drl_ray_tracking.analysis.tables import number
from drl_ray_tracking.errors import DataError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# What stands together, by globs on metric names; a panel for each of which the run has something.
_PANELS: Final[Mapping[str, tuple[str, ...]]] = {
    "return of an episode": ("train/episode/return_mean", "eval/episode/return_mean", "*/rllib/episode_return_mean"),
    "Sharpe ratio, evaluated": ("eval/trading/sharpe",),
    "total return, evaluated": ("eval/trading/total_return",),
    "drawdown, evaluated": ("eval/trading/max_drawdown",),
    "entropy of the policy": ("learner/*/entropy",),
    "KL divergence": ("learner/*/kl",),
    "policy loss": ("learner/*/policy_loss",),
    "value loss": ("learner/*/value_loss",),
    "total loss": ("learner/*/total_loss",),
}
_SHOWN: Final = 6  # panels
_LINES: Final = 4  # in a panel


def trial_curves(histories: Mapping[str, pd.Series[float]], heading: str, objective: str | None = None) -> Figure:
    """Draws a run's learning curves over env steps, in panels.

    Args:
        histories: metric -> its values, index env steps; missing where undefined.
        heading: what it is, such as a run's name.
        objective: the metric that the sweep is about; it comes first.

    Raises:
        DataError: there is no metric to draw.
    """
    known = {key: values.dropna() for key, values in histories.items()}
    panels = _panels({key: values for key, values in known.items() if len(values)}, objective)
    if not panels:
        raise DataError("the run has no metric to draw a learning curve of")
    columns = 1 if len(panels) == 1 else 2
    rows = -(-len(panels) // columns)
    figure = new_figure(9.0 if columns == 1 else 12.5, 1.0 + (4.0 if rows == 1 else 2.5 * rows))
    axes: Axes | None = None
    for index, (name, lines) in enumerate(panels.items()):
        axes = figure.add_subplot(rows, columns, index + 1, sharex=axes)
        style(axes)
        _draw(axes, lines)
        axes.set_title(drawable(cut(name, 60)), loc="left", fontsize=10, color=MUTED, parse_math=False)
        if index + columns < len(panels):
            axes.set_xlabel("")
    reached = max(int(values.index[-1]) for lines in panels.values() for values in lines.values())
    title(figure, heading, f"learning curves  ·  {reached:,} env steps")
    return figure


def _panels(known: Mapping[str, pd.Series[float]], objective: str | None) -> dict[str, dict[str, pd.Series[float]]]:
    """Returns the lines of each panel; a run that has none of ours gets one panel a metric."""
    found: dict[str, dict[str, pd.Series[float]]] = {}
    for name, globs in _PANELS.items():
        lines = {key: known[key] for glob in globs for key in sorted(known) if fnmatchcase(key, glob)}
        if lines:
            found[name] = dict(list(lines.items())[:_LINES])
    if not found:
        found = {key: {key: known[key]} for key in sorted(known)}
    if objective is not None and objective in known and not any(objective in lines for lines in found.values()):
        found[objective] = {objective: known[objective]}
    first = [name for name, lines in found.items() if objective in lines]
    return {name: found[name] for name in [*first, *(name for name in found if name not in first)][:_SHOWN]}


def _draw(axes: Axes, lines: Mapping[str, pd.Series[float]]) -> None:
    names = _told_apart(list(lines))
    ends = []
    for index, (key, values) in enumerate(lines.items()):
        colour = INK if len(lines) == 1 else COLOURS[index]
        few = len(values) <= MARKED_UP_TO
        axes.plot(values.index, values.to_numpy(), color=colour, lw=1.6, marker="o" if few else "", ms=3.5)
        last = float(values.iloc[-1])
        ends.append((values.index[-1], last, "\n".join(part for part in (names[key], number(last)) if part), colour))
    steps_axis(axes)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(round(value, 12))))
    low, high = axes.get_ylim()
    if low < 0.0 < high:
        axes.axhline(0.0, color=MUTED, lw=0.8, zorder=0)
    name_ends(axes, ends)


def _told_apart(keys: list[str]) -> dict[str, str]:
    """Returns what tells the metrics of a panel apart: their split, else their module; nothing for a single one."""
    if len(keys) == 1:
        return {keys[0]: ""}
    parts = {key: key.split("/") for key in keys}
    for place in (0, 1):
        texts = {key: part[place] if len(part) > place else key for key, part in parts.items()}
        if len(set(texts.values())) == len(keys):
            return {key: cut(text, 18) for key, text in texts.items()}
    return {key: cut(key, 18) for key in keys}
