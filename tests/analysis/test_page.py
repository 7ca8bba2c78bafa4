"""The page as a file: complete, harmless, the same again, and honest where there is little to show."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest

from drl_ray_tracking.analysis.compare import compare
from drl_ray_tracking.analysis.comparison import Comparison
from drl_ray_tracking.analysis.page.blocks import plain
from drl_ray_tracking.analysis.page.render import definitions, render_page
from drl_ray_tracking.analysis.runset import RunSet
from drl_ray_tracking.analysis.verdict import judged
from tests.analysis.showcase import HOSTILE, METRIC, compared, showcase

SECTIONS = (
    "verdict", "leaderboard", "curves", "seeds", "parameters", "all-trials", "equity", "luck-section", "sensitivity",
    "alerts", "lineage", "budget", "definitions",
)  # fmt: skip
CHARTS = (
    "learning-curves", "profile", "improvement", "parallel", "importance", "equity-0", "luck", "logits", "costs",
    "lineage-chart",
)  # fmt: skip


class Parsed(HTMLParser):
    """The elements of a page with their attributes, and its text outside scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.charts = ""
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = dict(attrs).get("id") or tag if tag in ("script", "style") else self._inside

    def handle_endtag(self, tag: str) -> None:
        self._inside = "" if tag in ("script", "style") else self._inside

    def handle_data(self, data: str) -> None:
        if self._inside == "charts":
            self.charts += data
        elif not self._inside:
            self.text.append(data)

    @property
    def said(self) -> str:
        return " ".join(" ".join(self.text).split())

    def ids(self) -> list[str]:
        return [str(attributes["id"]) for _, attributes in self.elements if "id" in attributes]


@pytest.fixture(scope="module")
def shown() -> tuple[RunSet, Comparison]:
    runs = showcase()
    return runs, compared(runs)


@pytest.fixture(scope="module")
def page(shown: tuple[RunSet, Comparison]) -> str:
    runs, comparison = shown
    return render_page(comparison, runs, f"search {HOSTILE}")


def test_every_section_and_chart_is_there(page: str) -> None:
    parsed = Parsed(page)
    assert [ident for ident in parsed.ids() if ident in SECTIONS] == list(SECTIONS)
    assert set(json.loads(parsed.charts)) == set(CHARTS)
    assert len(parsed.ids()) == len(set(parsed.ids()))
    menu = [
        str(attributes["href"])[1:] for tag, attributes in parsed.elements if tag == "a" and "class" not in attributes
    ]
    assert set(SECTIONS) - {"verdict"} <= set(menu)


def test_it_needs_nothing_from_elsewhere(page: str) -> None:
    parsed = Parsed(page)
    fetched = [
        (tag, attributes)
        for tag, attributes in parsed.elements
        if (tag in ("script", "img", "iframe") and "src" in attributes)
        or (tag == "link" and attributes["href"] != "data:,")
    ]
    assert fetched == []
    outside = [str(attributes.get("href")) for tag, attributes in parsed.elements if tag == "a"]
    assert {href.split("/#/")[0] for href in outside if not href.startswith("#")} == {"http://mlflow.example:5000"}
    assert "secret" not in page, "the store's password"
    assert page.count("plotly.js v") == 1 and len(page) < 6_000_000
    policy = next(str(attributes["content"]) for tag, attributes in parsed.elements if "http-equiv" in attributes)
    nonces = {attributes["nonce"] for tag, attributes in parsed.elements if tag == "script" and "nonce" in attributes}
    assert policy.startswith("default-src 'none'") and nonces == {re.search("nonce-([0-9a-f]+)", policy)[1]}  # type: ignore[index]


def test_names_are_only_text(page: str) -> None:
    parsed = Parsed(page)
    assert "img" not in {tag for tag, _ in parsed.elements}
    assert not [name for _, attributes in parsed.elements for name in attributes if name.startswith("on")]
    assert parsed.said.count(HOSTILE) >= 8
    assert "<img" not in parsed.charts, "plotly.js takes tags in texts for markup"
    assert json.dumps(plain(HOSTILE)).strip('"') in json.dumps(json.loads(parsed.charts))
    assert "%{" not in plain("%{x} $1$ <b>") and "<" not in plain("%{x} <b>")


def test_every_number_of_the_verdict_leads_to_what_it_is(page: str, shown: tuple[RunSet, Comparison]) -> None:
    _, comparison = shown
    assert comparison.verdict is not None
    parsed = Parsed(page)
    linked = {str(a["href"])[1:] for tag, a in parsed.elements if tag == "a" and a.get("class") == "number"}
    assert len(linked) >= 10 and linked <= set(parsed.ids())
    assert {f"number-{one.name}" for one in comparison.verdict.numbers} <= set(parsed.ids())
    assert comparison.verdict.advice in parsed.said


def test_it_is_the_same_again(page: str, shown: tuple[RunSet, Comparison]) -> None:
    runs, comparison = shown
    assert render_page(comparison, runs, f"search {HOSTILE}") == page


def test_every_number_on_the_page_is_defined() -> None:
    terms = [term for term, meaning in definitions() if len(meaning) > 40]
    assert len(terms) == len(definitions()) == len(set(terms)) >= 15


def test_charts_hold_no_value_that_json_has_not(page: str) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    json.loads(Parsed(page).charts, parse_constant=refuse)


# --- little to show: each a sentence -------------------------------------------------------------------------


def only(runs: RunSet, *positions: int) -> RunSet:
    return dataclasses.replace(runs, runs=runs.runs.iloc[list(positions)], unreadable=(), notes=())


def without_series(runs: RunSet) -> RunSet:
    return dataclasses.replace(runs, source=None)


CASES: dict[str, tuple[Callable[[], RunSet], list[str]]] = {
    "one run": (
        lambda: only(showcase(), 0),
        ["One group, 1 seed: nothing to rank it against", "a profile needs 3 seeds in a group",
         "two groups of three seeds are needed", "need configurations that differ", "there are 1 and they"],
    ),
    "two seeds": (
        lambda: only(showcase(), 0, 1, 9, 10),
        ["2 seeds each: no ranking; at least 3 are needed.", "a profile needs 3 seeds in a group",
         "importance needs at least 8 configurations but there are 2"],
    ),
    "no series": (
        lambda: without_series(only(showcase(), *range(9, 18))),
        ["Cannot be judged", "Its luck and its skill cannot be told apart.", "no equity is drawn",
         "The trial count cannot be drawn", "there are no return series"],
    ),
    "no undefined value, no alert, no lineage": (
        lambda: only(showcase(), 15, 16, 17),
        ["No trial raised an alert", "No trial went on from another's checkpoint"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_shown_is_said(case: str) -> None:
    make, sentences = CASES[case]
    runs = make()
    said = Parsed(render_page(judged(compare(runs), runs), runs, case)).said
    for sentence in sentences:
        assert sentence in said
    assert "Traceback" not in said and " nan" not in said.lower() and "None" not in said


def test_metrics_missing_undefined_and_on_other_grids_make_a_page(make_runs: Any) -> None:
    runs = make_runs(
        [
            {"seed": "1", "history": [(100, 1.0), (200, 2.0), (300, 1.5)]},
            {"seed": "2", "history": [(150, 2.0), (290, math.nan), (310, 3.0), (5000, 2.5)]},
            {"seed": "3", "history": [(7000, 1.0)]},
            {"name": "has none", "seed": "4"},
            {"name": "undefined at last", "seed": "5", "history": [(100, 1.0), (200, math.nan)]},
            {"config_hash": "other", "param.lr": None, "history": [(100, math.inf)]},
        ]
    )
    comparison = judged(compare(runs), runs)
    parsed = Parsed(render_page(comparison, runs, "grids"))
    assert "learning-curves" in json.loads(parsed.charts)
    assert "taken at different env steps, 300 to 7,000" in parsed.said
    assert "(an older one is not taken): undefined at last." in parsed.said


def test_a_tune_result_does_not_claim_to_know_test_windows(shown: tuple[RunSet, Comparison]) -> None:
    runs = dataclasses.replace(shown[0], test_evaluations=None, test_windows={}, tracking_uri="")
    said = Parsed(render_page(judged(compare(runs), runs), runs, "tune")).said
    assert "a Tune result does not know it" in said and "test looks not known" in said


def test_many_groups_are_drawn_up_to_a_number_and_said() -> None:
    runs = showcase(configurations=50, seeds=1)
    comparison = compare(runs)
    said = Parsed(render_page(comparison, runs, "many")).said
    assert "The 7 groups ranked last are not drawn." in said
    assert "Not judged" in said


def test_a_table_marks_what_is_missing_so_that_it_sorts_last(make_runs: Any) -> None:
    runs = make_runs([{"value": 1.0}, {"status": "FAILED", "seed": None}])
    page = render_page(compare(runs), runs, "x")
    row = page[page.index(">run-1<") :].partition("</tr>")[0]
    assert row.count("data-key") == 2 and row.count("–") == 3, "group and status have a key; seed, value, steps none"
    assert METRIC in page
