"""A comparison as text: Markdown for MLflow and reports, a table for the terminal.

Names of runs, parameters and tags are users' text: none of it may become markup.
"""

from __future__ import annotations

import html
import math
import re
from typing import TYPE_CHECKING, Final

import pandas as pd

if TYPE_CHECKING:
    from rich.table import Table

    from drl_ray_tracking.analysis.comparison import Comparison

_TEXT_COLUMNS: Final = frozenset({"group", "best run"})
_MISSING: Final = "–"


def group_rows(comparison: Comparison) -> list[dict[str, str]]:
    """Returns the groups as text cells, one mapping of column title to cell a group, in order."""
    interval = f"{100 * comparison.confidence:.4g} % interval"
    rows = []
    for _, row in comparison.groups.iterrows():
        low, high = number(row["low"]), number(row["high"])
        rows.append(
            {
                "rank": _MISSING if pd.isna(row["rank"]) else str(row["rank"]),
                "group": str(row["label"]),
                "seeds": str(row["n_seeds"]),
                "IQM": number(row["iqm"]),
                interval: _MISSING if low == _MISSING else f"{low} to {high}",
                "mean": number(row["mean"]),
                "sd": number(row["sd"]),
                "best run": str(row["best_run"]),
                "best": number(row["best_value"]),
            }
        )
    return rows


def number(value: float) -> str:
    """Returns a number to four significant digits with a true minus sign; a dash where it is missing."""
    return _MISSING if math.isnan(value) else f"{value:.4g}".replace("-", "−", 1)


def summary_line(comparison: Comparison) -> str:
    """Returns what was compared, in one sentence without markup."""
    better = "higher" if comparison.mode == "max" else "lower"
    value = {
        "last": "its last value",
        "best": "its best value over all evaluations",
        "budget": f"its last value within {comparison.budget or 0:,} env steps",
    }[comparison.at]
    return (
        f"{len(comparison.values)} of {comparison.n_given} runs in {len(comparison.groups)} groups by "
        f"{comparison.by.removeprefix('param.')}; {better} is better; a run counts with {value}."
    )


def markdown_page(comparison: Comparison, max_groups: int | None = None) -> str:
    """Returns heading, table, findings and notes as Markdown; see `Comparison.to_markdown`."""
    rows = group_rows(comparison)
    titles = list(rows[0])
    shown = rows[:max_groups]
    lines = [f"## Comparison on {escape(comparison.metric)}", "", escape(summary_line(comparison)), ""]
    lines.append(f"| {' | '.join(titles)} |")
    lines.append(f"| {' | '.join(':--' if title in _TEXT_COLUMNS else '--:' for title in titles)} |")
    lines.extend(f"| {' | '.join(escape(cell) for cell in row.values())} |" for row in shown)
    if len(shown) < len(rows):
        lines.extend(["", f"{len(rows) - len(shown)} more groups are in comparison.csv."])
    lines.extend(["", "IQM: mean of the middle half of the seeds. sd: between seeds.", ""])
    if comparison.verdict is not None:
        lines.extend(["### Verdict", "", escape(comparison.verdict.text), ""])
        if comparison.verdict.numbers:
            lines.extend(["| number | value | what it says |", "| :-- | --: | :-- |"])
            lines.extend(
                f"| {escape(one.name)} | {one.shown} | {escape(one.meaning)} |" for one in comparison.verdict.numbers
            )
            lines.append("")
    lines.extend(f"- {escape(sentence)}" for sentence in comparison.findings)
    if comparison.notes:
        lines.extend(["", "### Before you believe it", ""])
        lines.extend(f"- {escape(sentence)}" for sentence in comparison.notes)
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Returns Markdown that shows a text as it is: one line, no HTML, no markup, no table cell ended."""
    # `&` and `<` first: what follows adds backslashes only, which HTML leaves alone.
    return re.sub(r"([\\`*_{}\[\]|~#!])", r"\\\1", html.escape(printable(text), quote=False))


def printable(text: str) -> str:
    """Returns a text with a space for every line break, control character and invisible sign."""
    return "".join(sign if sign.isprintable() else " " for sign in text)


def terminal_table(comparison: Comparison) -> Table:
    """Returns a rich table; see `Comparison.to_rich`."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    # Eighty columns must do: the mean is left to the Markdown page.
    rows = [{title: cell for title, cell in row.items() if title != "mean"} for row in group_rows(comparison)]
    verdict = (f"Verdict. {comparison.verdict.text}",) if comparison.verdict else ()
    caption = "\n".join(printable(sentence) for sentence in (*comparison.findings, *verdict, *comparison.notes))
    table = Table(
        title=Text(printable(comparison.metric)), caption=Text(caption), caption_justify="left", box=box.SIMPLE_HEAD
    )
    for title in rows[0]:
        # A name that does not fit is folded, never cut: it is what the row is about.
        table.add_column(title, justify="left" if title in _TEXT_COLUMNS else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row.values()))
    return table
