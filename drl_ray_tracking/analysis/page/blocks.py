"""What a page is made of: sections of charts, tables and sentences. Values; the template turns them into HTML."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from drl_ray_tracking.analysis.tables import number, printable

Kind = Literal["text", "number"]


@dataclass(frozen=True)
class Chart:
    """A chart as plotly.js takes it; names in it have to be `plain` already.

    `least_width` is what it needs to be readable, in pixels: narrower screens scroll it. Beyond `most_width` it does
    not grow; 0 is no limit.
    """

    ident: str
    title: str
    caption: str
    data: list[dict[str, Any]]
    layout: dict[str, Any]
    height: int = 400
    least_width: int = 0
    most_width: int = 0
    kind: str = field(default="chart", init=False)


@dataclass(frozen=True)
class Interval:
    """An interval drawn in a table, all as shares of the column's width; the ends are None where there is none."""

    at: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Cell:
    """What a table shows: `text`, sorted by `key` (None: last), explained by `hint`, drawn as `interval`."""

    text: str
    key: float | str | None = None
    hint: str = ""
    href: str = ""
    interval: Interval | None = None
    filters: str = ""  # the table that a click on this cell narrows to this text


@dataclass(frozen=True)
class Column:
    """A column: its title, whether it holds numbers, what it is, and whether its values are offered as filters."""

    title: str
    kind: Kind = "text"
    hint: str = ""
    chips: bool = False


@dataclass(frozen=True)
class Table:
    """A table that can be sorted by any column, and filtered where `search` says so."""

    ident: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    search: bool = False
    title: str = ""
    kind: str = field(default="table", init=False)

    def chips(self) -> dict[int, list[str]]:
        """Returns the values offered as filters, by column."""
        return {
            index: sorted({row[index].text for row in self.rows})
            for index, column in enumerate(self.columns)
            if column.chips
        }


@dataclass(frozen=True)
class Sentence:
    """A sentence, or why something is not shown (`muted`)."""

    text: str
    muted: bool = False
    kind: str = field(default="sentence", init=False)


Block = Chart | Table | Sentence


@dataclass(frozen=True)
class Section:
    """A part of the page: what it is called above it and in the menu, one line that says what is seen, its blocks."""

    ident: str
    title: str
    menu: str
    lead: str
    blocks: tuple[Block, ...]


def text_cell(value: object, **more: Any) -> Cell:
    """Returns a cell of text, sorted by it."""
    text = printable(str(value))
    return Cell(text, text.lower(), **more)


def number_cell(value: float | None, shown: str | None = None, **more: Any) -> Cell:
    """Returns a cell of a number, a dash where there is none."""
    if value is None or math.isnan(value):
        return Cell("–", None, **more)
    if math.isinf(value):
        return Cell("∞" if value > 0 else "−∞", value, **more)
    return Cell(number(value) if shown is None else shown, float(value), **more)


def plain(text: object) -> str:
    """Returns a user's text for plotly.js, which takes HTML tags in texts for markup and `%{...}` for a template."""
    return html.escape(printable(str(text)), quote=False).replace("%{", "%\u200b{")
