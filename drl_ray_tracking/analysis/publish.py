"""Takes a comparison to where people look: the parent run in MLflow, or a folder with a report in it.

Both may be repeated: the same names are written again, nothing is added twice.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pandas as pd

from drl_ray_tracking import names
from drl_ray_tracking.analysis.comparison import Comparison
from drl_ray_tracking.analysis.evaluations import evaluation_of
from drl_ray_tracking.analysis.runset import RunSet
from drl_ray_tracking.analysis.tables import escape
from drl_ray_tracking.errors import DataError, TrackingError

TABLE: Final = "comparison.csv"
TRIALS: Final = "trials.csv"
REPORT: Final = "report.md"
PAGE: Final = "report.html"
PICTURES: Final = "pictures"
LEARNING_CURVES: Final = "learning_curves.png"
EQUITY_CURVE: Final = "equity_curve.png"
TRADES: Final = "trades.png"

_DESCRIPTION_TAG: Final = "mlflow.note.content"
# MLflow cuts a tag at 8,000 characters, with a warning only.
_DESCRIPTION_LIMIT: Final = 7_800
_CAPTIONS: Final = {
    LEARNING_CURVES: "Learning curves",
    EQUITY_CURVE: "Equity of the best run",
    TRADES: "Entries and exits of the best run",
    "return_distribution.png": "Returns of the best run",
    "monthly_returns.png": "Monthly returns of the best run",
}


@dataclass(frozen=True)
class _Pictures:
    """Which pictures are in a folder, and why the others are not."""

    drawn: tuple[str, ...]
    missing: dict[str, str]


def publish(
    comparison: Comparison, runs: RunSet, *, tracking_uri: str | None, title: str = "", page: bool = True
) -> list[str]:
    """Writes a comparison onto the parent runs of the runs compared: description, tables, pictures, the HTML page.

    Args:
        comparison: of `runs`.
        runs: what was compared.
        tracking_uri: the MLflow store of the parent runs; None for the one `runs` was read from.
        title: of the page, such as the experiment's name.
        page: also the HTML page, five megabytes of it.

    Returns:
        The parent run ids written to, sorted.

    Raises:
        DataError: the runs compared have no parent run.
        ConfigurationError: the store refuses or cannot be reached.
    """
    from drl_ray_tracking.analysis.runs import open_client
    from drl_ray_tracking.analysis.store_errors import store_errors

    parents = sorted(set(runs.runs.loc[comparison.values.index, "parent_run_id"].dropna()))
    if not parents:
        raise DataError(
            f"the {len(comparison.values)} runs compared have no parent run to publish on: write a report instead"
        )
    uri = tracking_uri or runs.tracking_uri
    client = open_client(uri)
    with tempfile.TemporaryDirectory(prefix="drl-publish-") as scratch:
        folder = Path(scratch)
        _write_tables(comparison, folder)
        (folder / PICTURES).mkdir()
        pictures = _draw(comparison, runs, folder / PICTURES)
        _write_symbols(comparison, runs, folder)
        if page:
            _write_page(comparison, runs, title, folder)
        description = _description(comparison, pictures, page)
        with store_errors(uri):
            for parent in parents:
                client.log_artifacts(parent, str(folder))
                client.set_tag(parent, _DESCRIPTION_TAG, description)
    return parents


def write_report(comparison: Comparison, runs: RunSet, directory: str | Path, title: str = "") -> Path:
    """Writes `report.html`, the same as `report.md` with pictures, and its tables as CSV; returns the page's path.

    Args:
        comparison: of `runs`.
        runs: what was compared.
        directory: made where it does not exist; files of an earlier report in it are replaced.
        title: of the page, such as the experiment's name.
    """
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    _write_tables(comparison, folder)
    pictures = _draw(comparison, runs, folder)
    _write_symbols(comparison, runs, folder)
    shown = "".join(f"\n![{_CAPTIONS[name]}]({name})\n" for name in pictures.drawn)
    (folder / REPORT).write_text(comparison.to_markdown() + shown + _absences(pictures), encoding="utf-8")
    return _write_page(comparison, runs, title, folder)


def _write_tables(comparison: Comparison, folder: Path) -> None:
    comparison.groups.to_csv(folder / TABLE)
    comparison.values.to_csv(folder / TRIALS)


def _write_page(comparison: Comparison, runs: RunSet, title: str, folder: Path) -> Path:
    from drl_ray_tracking.analysis.page.render import render_page

    path = folder / PAGE
    path.write_text(render_page(comparison, runs, title or comparison.metric), encoding="utf-8")
    return path


def _draw(comparison: Comparison, runs: RunSet, folder: Path) -> _Pictures:
    """Draws what can be drawn into a folder; an earlier picture that cannot be drawn any more goes."""
    from drl_ray_tracking.analysis.plots import learning_curves
    from drl_ray_tracking.analysis.trace import traces
    from drl_ray_tracking.analysis.trade_chart import trade_chart
    from drl_ray_tracking.analysis.trial_pictures import evaluation_drawings

    def bars() -> pd.DataFrame:
        return _best_evaluation(comparison, runs)

    def trades() -> Any:
        best = max(traces(bars()), key=lambda trace: trace.total_return)
        return trade_chart(best, f"{name}: best episode of its evaluation")

    name = str(runs.runs.loc[comparison.best_run.run_id, "name"])
    drawings: dict[str, Callable[[], Any]] = {
        LEARNING_CURVES: lambda: learning_curves(runs, comparison),
        **evaluation_drawings(bars, name),
        TRADES: trades,
    }
    drawn, missing = [], {}
    for file, draw in drawings.items():
        try:
            draw().savefig(folder / file)
            drawn.append(file)
        except TrackingError as error:
            (folder / file).unlink(missing_ok=True)
            missing[file] = str(error)
    return _Pictures(tuple(drawn), missing)


def _best_evaluation(comparison: Comparison, runs: RunSet) -> pd.DataFrame:
    """Returns the bars of the evaluation that the best run's value is of."""
    best = comparison.best_run
    return evaluation_of(runs, comparison.metric, best.run_id, best.step)


def _write_symbols(comparison: Comparison, runs: RunSet, folder: Path) -> None:
    """Writes the best run's table of symbols; an earlier one that cannot be made any more goes."""
    from drl_ray_tracking.analysis.symbol_table import symbol_table

    try:
        symbol_table(_best_evaluation(comparison, runs)).to_csv(folder / names.SYMBOLS_ARTIFACT, index=False)
    except TrackingError:
        (folder / names.SYMBOLS_ARTIFACT).unlink(missing_ok=True)


def _description(comparison: Comparison, pictures: _Pictures, page_too: bool) -> str:
    """Returns the summary within MLflow's limit: with fewer groups where all would not fit."""
    files = [PAGE] * page_too + [f"{PICTURES}/{name}" for name in pictures.drawn] + [TABLE, TRIALS]
    closing = f"\nAmong the artifacts: {', '.join(f'`{name}`' for name in files)}.\n" + _absences(pictures)
    page = ""
    for page in _pages(comparison):
        if len(page) + len(closing) <= _DESCRIPTION_LIMIT:
            return page + closing
    return f"{page[: _DESCRIPTION_LIMIT - len(closing) - 2]}…\n{closing}"


def _pages(comparison: Comparison) -> Iterator[str]:
    yield comparison.to_markdown()
    for max_groups in (40, 20, 10, 5, 2):
        yield comparison.to_markdown(max_groups)


def _absences(pictures: _Pictures) -> str:
    by_reason: dict[str, list[str]] = {}
    for file, reason in pictures.missing.items():
        by_reason.setdefault(reason, []).append(_CAPTIONS[file])
    return "".join(
        f"\n{', '.join(captions)}: no picture, because {escape(reason[:500])}.\n"
        for reason, captions in by_reason.items()
    )
