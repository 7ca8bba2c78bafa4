"""The seal of a run's histories: one file with every point of the run, and how a reader knows that it is whole.

One request for the file stands for a request a metric. But a run may be written to again after the file was: by a
restored sweep, an import that completes it, a person. So who writes points keeps a rule, and who reads trusts nothing
else than:

- only a journal that has made the run itself seals it, when the trial has ended and its points have arrived;
- whoever opens a run again first takes its seal away;
- a seal counts while its epoch is the run's, its file has its digest and number of points, and the file's latest point
  of each metric is the one the store names as its latest: neither more metrics nor fewer.

One thing is not noticed: a point that another tool adds below the latest step of a metric the run already has.

When the sweep ends, the very same files also go into one zip file of its parent run, so that a thousand runs are read
in one request. That adds nothing to trust: what comes out of it is held against each run's own seal.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Final

LEAST_BUNDLED: Final = 4  # trials; fewer are read as soon one by one
COLUMNS: Final = ("metric", "step", "value", "time_ms")  # of the file: text, int64, float64, int64


@dataclass(frozen=True)
class Seal:
    """What was true of the file when it was written: SHA-256 of its bytes, rows, and `drl.epoch` of the run."""

    sha256: str
    points: int
    epoch: int

    def to_text(self) -> str:
        """Returns the tag's value."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str | None) -> Seal | None:
        """Returns the seal a tag holds; None where there is none, it was taken away, or it cannot be read."""
        try:
            told = json.loads(text or "")
            return cls(str(told["sha256"]), int(told["points"]), int(told["epoch"]))
        except (ValueError, KeyError, TypeError):
            return None


def bundle_names(text: str | None) -> tuple[str, ...]:
    """Returns the names that the parent run's tag lists; none where there is none or it cannot be read."""
    try:
        told = json.loads(text or "[]")
    except ValueError:
        return ()
    return tuple(str(name) for name in told) if isinstance(told, list) else ()


def member_name(run_id: str) -> str:
    """Returns what a run's file is called in a bundle."""
    return f"{run_id}.parquet"
