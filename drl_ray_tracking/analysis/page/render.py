"""Turns a comparison into one HTML file: everything in it, nothing fetched, every user's text escaped."""

from __future__ import annotations

import hashlib
import json
import math
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

import pandas as pd

from drl_ray_tracking.analysis.comparison import Comparison
from drl_ray_tracking.analysis.page.blocks import Chart
from drl_ray_tracking.analysis.page.compared import compared_sections
from drl_ray_tracking.analysis.page.trusted import trusted_sections
from drl_ray_tracking.analysis.runset import RunSet
from drl_ray_tracking.analysis.tables import number, summary_line

_NUMBER_IN_TEXT = re.compile(r"\{(\w+)\}|(\{\{)|(\}\})")


@dataclass(frozen=True)
class Fact:
    """A key figure at the top of the page."""

    title: str
    value: str
    detail: str


def render_page(comparison: Comparison, runs: RunSet, title: str) -> str:
    """Returns the page.

    Args:
        comparison: of `runs`; with its verdict, where there is one.
        runs: what was compared.
        title: of the page, such as the experiment's name.
    """
    link = _links(runs)
    sections = [*compared_sections(comparison, runs, link), *trusted_sections(comparison, runs, link)]
    charts: dict[str, Any] = {
        block.ident: {"data": block.data, "layout": {**block.layout, "height": block.height}}
        for section in sections
        for block in section.blocks
        if isinstance(block, Chart)
    }
    content: dict[str, Any] = {
        "title": title,
        "comparison": comparison,
        "summary": summary_line(comparison),
        "sections": sections,
        "verdict": list(_verdict_parts(comparison)),
        "numbers": comparison.verdict.numbers if comparison.verdict else (),
        "about": list(_about(runs)),
        "facts": list(_facts(comparison, runs)),
        "definitions": definitions(),
        "charts": charts,
        "plotly": _plotly(),
        "style": _file("report.css"),
        "script": _file("report.js"),
    }
    # Nothing but the page's own scripts may run, whatever stood in a name: a browser holds to it as well.
    content["nonce"] = hashlib.sha256(json.dumps([title, charts, comparison.to_dict()]).encode()).hexdigest()[:32]
    return str(_template().render(content))


def _links(runs: RunSet) -> Callable[[str], str]:
    """Returns where a store with a web page shows a run; '' for other stores."""
    address = urlsplit(runs.tracking_uri)
    if address.scheme not in ("http", "https"):
        return lambda run_id: ""
    host = address.netloc.rpartition("@")[2]  # never a password
    experiments = runs.runs["experiment_id"].to_dict() if "experiment_id" in runs.runs else {}
    base = f"{address.scheme}://{host}{address.path.rstrip('/')}/#/experiments"
    return lambda run_id: f"{base}/{experiments[run_id]}/runs/{run_id}" if run_id in experiments else ""


def _verdict_parts(comparison: Comparison) -> Iterator[tuple[str, str]]:
    """Yields the verdict's text in pieces: (text, '') and (number as shown, its name)."""
    if comparison.verdict is None:
        return
    shown = {one.name: one.shown for one in comparison.verdict.numbers}
    template, at = comparison.verdict.template, 0
    for match in _NUMBER_IN_TEXT.finditer(template):
        if match.start() > at:
            yield template[at : match.start()], ""
        name = match.group(1)
        yield (shown[name], name) if name else (match.group()[0], "")
        at = match.end()
    if at < len(template):
        yield template[at:], ""


def _about(runs: RunSet) -> Iterator[str]:
    """Yields what the runs are, as far as they agree."""
    for column in ("algorithm", "symbols", "timeframe"):
        known = [str(value) for value in runs.runs[column].dropna().unique() if value] if column in runs.runs else []
        if known:
            yield ", ".join(known) if len(known) <= 3 else f"{len(known)} {column}"
    sweeps = int(runs.runs["sweep_id"].nunique())
    if sweeps:
        yield "1 sweep" if sweeps == 1 else f"{sweeps} sweeps"
    ended = pd.to_numeric(runs.runs["end_ms"], errors="coerce").max() if "end_ms" in runs.runs else math.nan
    if not math.isnan(ended):
        yield f"last run ended {time.strftime('%Y-%m-%d', time.gmtime(ended / 1000))}"


def _facts(comparison: Comparison, runs: RunSet) -> Iterator[Fact]:
    known = {one.name: one for one in comparison.verdict.numbers} if comparison.verdict else {}
    first = comparison.groups.iloc[0]
    metric = comparison.metric.rpartition("/")[2].replace("_", " ")
    if first["low"] == first["low"]:
        detail = f"best group's IQM, {number(first['low'])} to {number(first['high'])}"
    else:
        detail = f"IQM of the first of {len(comparison.groups)} groups, too few seeds for an interval"
    yield Fact(metric, number(first["iqm"]), detail)
    if "dsr" in known:
        yield Fact("deflated Sharpe", known["dsr"].shown, f"{known['asked'].shown} is asked for")
    if "pbo" in known:
        yield Fact("overfitting", known["pbo"].shown, "one half is noise")
    if "candidates" in known:
        yield Fact("looked at", known["candidates"].shown, "evaluations on these bars")
    seeds = sorted(set(comparison.groups["n_seeds"]))
    span = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]}–{seeds[-1]}"
    yield Fact("seeds a group", span, f"{len(comparison.values)} trials in {len(comparison.groups)} groups")
    looks = "not known" if runs.test_evaluations is None else f"{runs.test_evaluations:,}"
    yield Fact("test looks", looks, "at windows kept for the end")


def definitions() -> list[tuple[str, str]]:
    """Returns (term, definition) of every number of the page, out of `glossary.md`."""
    parts = _file("glossary.md").removeprefix("## ").split("\n## ")
    pairs = (part.partition("\n") for part in parts)
    return [(term.strip(), " ".join(meaning.split())) for term, _, meaning in pairs]


def _file(name: str) -> str:
    return files("drl_ray_tracking.analysis.page").joinpath(name).read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def _template() -> Any:
    from jinja2 import Environment, StrictUndefined

    made = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return made.from_string(_file("report.html"))
