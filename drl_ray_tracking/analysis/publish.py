"""Takes a comparison to where people look: the parent run in MLflow, or a folder with a Markdown report.

Both may be repeated: the same names are written again, nothing is added twice.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from drl_ray_tracking.analysis.compare import Comparison
from drl_ray_tracking.analysis.runset import RunSet
from drl_ray_tracking.analysis.tables import escape
from drl_ray_tracking.errors import DataError, TrackingError

TABLE: Final = "comparison.csv"
REPORT: Final = "report.md"
PICTURES: Final = "pictures"
LEARNING_CURVES: Final = "learning_curves.png"
EQUITY_CURVE: Final = "equity_curve.png"

_DESCRIPTION_TAG: Final = "mlflow.note.content"
# MLflow cuts a tag at 8,000 characters, with a warning only.
_DESCRIPTION_LIMIT: Final = 7_800
_CAPTIONS: Final = {LEARNING_CURVES: "Learning curves", EQUITY_CURVE: "Equity of the best run"}


@dataclass(frozen=True)
class _Pictures:
    """Which pictures are in a folder, and why the others are not."""

    drawn: tuple[str, ...]
    missing: dict[str, str]


def publish(comparison: Comparison, runs: RunSet, *, tracking_uri: str | None) -> list[str]:
    """Writes a comparison onto the parent runs of the runs compared: description, table and pictures.

    Args:
        comparison: of `runs`.
        runs: what was compared.
        tracking_uri: the MLflow store of the parent runs; None for the one `runs` was read from.

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
        comparison.groups.to_csv(folder / TABLE)
        (folder / PICTURES).mkdir()
        pictures = _draw(comparison, runs, folder / PICTURES)
        description = _description(comparison, pictures)
        with store_errors(uri):
            for parent in parents:
                client.log_artifacts(parent, str(folder))
                client.set_tag(parent, _DESCRIPTION_TAG, description)
    return parents


def write_report(comparison: Comparison, runs: RunSet, directory: str | Path) -> Path:
    """Writes `report.md` with its pictures and `comparison.csv` beside it, and returns its path.

    Args:
        comparison: of `runs`.
        runs: what was compared.
        directory: made where it does not exist; files of an earlier report in it are replaced.
    """
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    comparison.groups.to_csv(folder / TABLE)
    pictures = _draw(comparison, runs, folder)
    shown = "".join(f"\n![{_CAPTIONS[name]}]({name})\n" for name in pictures.drawn)
    report = folder / REPORT
    report.write_text(comparison.to_markdown() + shown + _absences(pictures), encoding="utf-8")
    return report


def _draw(comparison: Comparison, runs: RunSet, folder: Path) -> _Pictures:
    """Draws what can be drawn into a folder; an earlier picture that cannot be drawn any more goes."""
    from drl_ray_tracking.analysis.plots import equity_curve, learning_curves

    best = comparison.best_run
    # A value taken at its best belongs to that evaluation; a training metric has none at its step.
    step = best.step if comparison.at == "best" and comparison.metric.startswith("eval/") else None
    drawings: dict[str, Callable[[], Any]] = {
        LEARNING_CURVES: lambda: learning_curves(runs, comparison),
        EQUITY_CURVE: lambda: equity_curve(runs, best.run_id, step),
    }
    drawn, missing = [], {}
    for name, draw in drawings.items():
        try:
            draw().savefig(folder / name)
            drawn.append(name)
        except TrackingError as error:
            (folder / name).unlink(missing_ok=True)
            missing[name] = str(error)
    return _Pictures(tuple(drawn), missing)


def _description(comparison: Comparison, pictures: _Pictures) -> str:
    """Returns the page within MLflow's limit: with fewer groups where all would not fit."""
    names = " and ".join(f"`{PICTURES}/{name}`" for name in pictures.drawn)
    closing = f"\nAmong the artifacts: {f'{names}, ' if names else ''}`{TABLE}`.\n" + _absences(pictures)
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
    return "".join(
        f"\n{_CAPTIONS[name]}: no picture, because {escape(reason[:500])}.\n"
        for name, reason in pictures.missing.items()
    )
