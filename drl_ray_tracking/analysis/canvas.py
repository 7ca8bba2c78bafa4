"""What every picture here has in common: colours, axes, titles, names at the ends of lines.

Figures are made without pyplot: no global state, no display, safe in threads. Colours are Okabe and Ito's, which
readers with any colour vision can tell apart; every line is named where it ends. Users' text is drawn as it is:
never as mathematics, and without signs the font lacks.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ticker import EngFormatter, MaxNLocator

from drl_ray_tracking.analysis.labels import cut
from drl_ray_tracking.analysis.palette import FAINT, GRID, INK, MUTED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FONT: Final = "DejaVu Sans"
MARKED_UP_TO: Final = 15  # points a curve may have and still be drawn with markers
_DPI: Final = 150


def new_figure(width: float, height: float) -> Figure:
    """Returns an empty figure of so many inches that finds room for what is written beside its axes."""
    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor="white")
    figure.set_layout_engine("constrained", h_pad=0.06, w_pad=0.08)
    return figure


def single_axes() -> tuple[Figure, Axes]:
    """Returns a figure with one pair of axes."""
    figure = new_figure(9.0, 5.0)
    axes = figure.add_subplot()
    style(axes)
    return figure, axes


def style(axes: Axes) -> None:
    """Makes axes quiet: no box, a faint horizontal grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.grid(axis="y", color=GRID, lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=MUTED, labelsize=9, length=3)
    axes.xaxis.label.set(color=MUTED, size=9.5)
    axes.yaxis.label.set(color=MUTED, size=9.5)
    axes.margins(x=0.01)


def name_ends(axes: Axes, ends: Sequence[tuple[Any, float, str, str]]) -> None:
    """Writes each text beside the axes at the height where its line ends, moved apart where they would touch."""
    if not ends:
        return
    low, high = axes.get_ylim()
    height = axes.get_window_extent().height / _DPI * 72.0
    gap = 25.0 / max(height, 1.0)  # two lines of 8.5 points, as a share of the axes
    placed = sorted((((y - low) / (high - low)), text, colour) for _, y, text, colour in ends)
    heights = apart([share for share, _, _ in placed], gap)
    for share, (_, text, colour) in zip(heights, placed, strict=True):
        axes.annotate(
            drawable(text, lines=True),
            xy=(1.0, share),
            xycoords="axes fraction",
            xytext=(8, 0),
            textcoords="offset points",
            color=colour,
            fontsize=8.5,
            va="center",
            linespacing=1.15,
            parse_math=False,
            annotation_clip=False,
        )


def steps_axis(axes: Axes) -> None:
    """Makes the horizontal axis one of env steps."""
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 2.5, 5, 10]))
    axes.set_xlabel("env steps")


def time_axis(axes: Axes, dated: bool) -> None:
    """Makes the horizontal axis one of dates, or of bars where there are none."""
    if dated:
        locator = AutoDateLocator(minticks=3, maxticks=8)  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    else:
        axes.set_xlabel("bar")


def apart(shares: Sequence[float], gap: float) -> list[float]:
    """Returns sorted heights at least `gap` apart, as near to the given ones as pushing up, then down, leaves them."""
    placed: list[float] = []
    for share in shares:
        placed.append(max(share, placed[-1] + gap) if placed else share)
    ceiling = max(1.0, shares[-1])
    for index in range(len(placed) - 1, -1, -1):
        placed[index] = min(placed[index], ceiling)
        ceiling = placed[index] - gap
    return placed


def title(figure: Figure, title: str, subtitle: str) -> None:
    """Writes what a figure shows, and below it, smaller, of what."""
    subtitle = cut(subtitle, int(14.5 * figure.get_size_inches()[0]))
    # The empty second line makes the layout reserve room for the subtitle, which has a style of its own.
    figure.suptitle(
        f"{drawable(cut(title, 90))}\n",
        x=0.012,
        ha="left",
        fontsize=13,
        fontweight="bold",
        color=INK,
        parse_math=False,
    )
    figure.text(
        0.012, 1.0 - 0.44 / figure.get_size_inches()[1], drawable(subtitle), ha="left", va="center",
        fontsize=9, color=MUTED, parse_math=False, in_layout=False,
    )  # fmt: skip


def percent(value: float, _: object = None) -> str:
    """Returns a share as an axis writes it."""
    if abs(value) <= 1e-12:
        return "0 %"
    return f"{100 * value:{',.0f' if abs(value) >= 10 else '.4g'}} %".replace("-", "−", 1)


def signed_percent(value: float) -> str:
    """Returns a return as text: always with its sign."""
    return f"{100 * value:{'+,.0f' if abs(value) >= 10 else '+.1f'}} %".replace("-", "−", 1)


def drawable(text: str, lines: bool = False) -> str:
    """Returns a text without control characters and signs the font has no picture of (shown as □)."""
    known = _signs()
    return "".join(
        sign if (ord(sign) in known and sign.isprintable()) or (lines and sign == "\n") else "□" for sign in text
    )


@lru_cache(maxsize=1)
def _signs() -> frozenset[int]:
    return frozenset(get_font(findfont(FontProperties(family=_FONT))).get_charmap())
