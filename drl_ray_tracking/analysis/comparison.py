"""What a comparison is: groups of seeds on one metric, with everything that was found about them. A value."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import pandas as pd

from drl_ray_tracking.analysis.runset import Mode
from drl_ray_tracking.analysis.tries import Tries
from drl_ray_tracking.analysis.variance import VarianceComponents

if TYPE_CHECKING:
    from rich.table import Table

At = Literal["last", "best", "budget"]
AT: Final = ("last", "best", "budget")

SEED: Final = 20260101  # of a comparison nobody gave a generator, so that it repeats
LEAST_SEEDS: Final = 3  # to rank: two seeds have a range, but no spread to speak of
PAIRS: Final = ("first", "second", "p_improvement", "hedges_g", "p_value", "p_adjusted")


@dataclass(frozen=True)
class BestRun:
    """The run with the best value of all: a maximum over every run looked at, and optimistic by that."""

    run_id: str
    name: str
    value: float
    step: int
    group: str


@dataclass(frozen=True)
class VerdictNumber:
    """A number of the verdict: what it is, how it is written, and in words what it says."""

    name: str
    value: float
    meaning: str
    shown: str


@dataclass(frozen=True)
class Verdict:
    """Whether the best may be believed; `accepted` is None where that cannot be judged.

    Attributes:
        accepted: both tests passed.
        subject: the run that is judged, and its group.
        template: what was found, with `{name}` for each number.
        advice: what to do now, in a sentence.
        numbers: every number of the text, written alike there.
    """

    accepted: bool | None
    subject: str
    template: str
    advice: str
    numbers: tuple[VerdictNumber, ...]

    @property
    def text(self) -> str:
        """The verdict as a paragraph."""
        found = self.template.format_map({one.name: one.shown for one in self.numbers})
        return f"{self.heading}: {self.subject}. {found} {self.advice}"

    @property
    def heading(self) -> str:
        """The verdict in two words."""
        return {True: "Accepted", False: "Not accepted", None: "Cannot be judged"}[self.accepted]

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON: an infinite value is None."""
        numbers = [{**asdict(one), "value": one.value if math.isfinite(one.value) else None} for one in self.numbers]
        return {"accepted": self.accepted, "text": self.text, "numbers": numbers}


def no_pairs() -> pd.DataFrame:
    """Returns the table of pairs where there is none."""
    return pd.DataFrame({column: [] for column in PAIRS})


@dataclass(frozen=True, eq=False)
class Comparison:
    """Groups of seeds compared on one metric.

    Attributes:
        metric: MLflow name.
        mode: whether higher (`max`) or lower (`min`) is better.
        by: the column of `RunSet.runs` that makes the groups.
        at: whether a run's value is its `last`, its `best`, or the last one within the `budget`.
        budget: env steps; None where `at` is not `budget`.
        confidence: of the intervals.
        groups: index `group`; columns `label`, `rank` (missing: not ranked), `n_seeds`, `n_runs`, `mean`, `iqm`,
            `low`, `high` (bootstrap interval of the IQM, missing below three seeds), `sd` (between seeds, missing
            below two), `best_run_id`, `best_run`, `best_value`. Ranked groups first, best first, then by label.
        values: index `run_id` of the runs compared; columns `name`, `group`, `seed`, `window`, `value`, `step` (env
            steps).
        windows: the market windows on which every seed was scored; empty where each seed has one score.
        pairs: ranked groups two by two, the better ranked `first` (keys of `groups`): `p_improvement`, `hedges_g`
            (positive where `first` is better, missing without spread), `p_value` (two-sided Welch test of the seeds'
            means), `p_adjusted` (Benjamini-Hochberg over all pairs).
        variance: where the differences between scores come from; None where it cannot be told.
        seeds_needed: seeds a group that would separate the first two ranked groups (Welch test, 5 %, power 0.9), were
            what was seen the truth; None where nothing is ranked, or the means contradict the ranks by IQM.
        n_given: runs that were given, compared or not.
        n_evaluations: evaluations the choice of the best value looked at.
        best_run: of the runs compared.
        findings: what the numbers say, in sentences.
        notes: what a reader has to know before believing them, in sentences.
        verdict: whether the best run may be believed, once `verdict.judged` has looked at its returns.
        tries: those returns, and those of everything it was chosen from.
    """

    metric: str
    mode: Mode
    by: str
    at: At
    budget: int | None
    confidence: float
    groups: pd.DataFrame
    values: pd.DataFrame
    windows: tuple[str, ...]
    n_given: int
    n_evaluations: int
    best_run: BestRun
    findings: tuple[str, ...]
    notes: tuple[str, ...]
    pairs: pd.DataFrame = field(default_factory=no_pairs)
    variance: VarianceComponents | None = None
    seeds_needed: float | None = None
    verdict: Verdict | None = None
    tries: Tries | None = field(default=None, repr=False)

    def rows(self) -> list[dict[str, str]]:
        """Returns the groups as text cells, one mapping of column title to cell a group, in order."""
        from drl_ray_tracking.analysis.tables import group_rows

        return group_rows(self)

    def to_markdown(self, max_groups: int | None = None) -> str:
        """Returns a Markdown page; whatever came from a user is escaped.

        Args:
            max_groups: rows of the table; None for all.
        """
        from drl_ray_tracking.analysis.tables import markdown_page

        return markdown_page(self, max_groups)

    def to_rich(self) -> Table:
        """Returns the groups as a table for a terminal, findings and notes below."""
        from drl_ray_tracking.analysis.tables import terminal_table

        return terminal_table(self)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON: missing and infinite values are None."""
        best = self.best_run
        return {
            "metric": self.metric,
            "mode": self.mode,
            "by": self.by,
            "at": self.at,
            "budget": self.budget,
            "confidence": self.confidence,
            "groups": _records(self.groups.reset_index()),
            "values": _records(self.values.reset_index()),
            "windows": list(self.windows),
            "pairs": _records(self.pairs),
            "variance": self.variance.shares() if self.variance else None,
            "seeds_needed": _plain(self.seeds_needed),
            "n_given": self.n_given,
            "n_evaluations": self.n_evaluations,
            "best_run": {"run_id": best.run_id, "name": best.name, "value": best.value, "step": best.step},
            "findings": list(self.findings),
            "notes": list(self.notes),
            "verdict": self.verdict.to_dict() if self.verdict else None,
        }


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    plain = frame.astype("object")
    return [{str(key): _plain(value) for key, value in row.items()} for row in plain.to_dict("records")]


def _plain(value: Any) -> Any:
    if pd.isna(value) or (isinstance(value, float) and math.isinf(value)):
        return None
    return value.item() if isinstance(value, np.generic) else value
