"""What happened to trials while they ran: whose checkpoints they went on from, and what they were alerted of."""

from __future__ import annotations

import json
from typing import Any, Final

import pandas as pd

HANDOVERS: Final = ("run_id", "name", "step", "donor", "changed")
ALERTS: Final = ("run_id", "name", "alert", "step")
_ALERT: Final = "alert."


def handovers(runs: pd.DataFrame) -> pd.DataFrame:
    """Returns every time that PBT or PB2 gave a trial another's checkpoint or changed its parameters.

    Args:
        runs: as `RunSet.runs`; its column `lineage` is what the tracker wrote down.

    Returns:
        Columns `run_id`, `name`, `step` (env steps from which it went on), `donor` (run id, or the trial's where its
        run is not among these; empty: its own checkpoint) and `changed` (parameters, comma-separated); by run and step.
        A tag that cannot be read tells of nothing.
    """
    named = runs["name"].to_dict()
    told = runs.reindex(columns=["trial_id", "lineage"])
    trials = {str(trial): str(run_id) for run_id, trial in told["trial_id"].dropna().items()}
    rows: list[tuple[str, str, int, str, str]] = []
    for run_id, text in told["lineage"].dropna().items():
        for _, step, donor, changed in _entries(text):
            whose = trials.get(str(donor), str(donor))
            rows.append((str(run_id), str(named[run_id]), int(step), whose, ", ".join(str(key) for key in changed)))
    return pd.DataFrame(sorted(rows), columns=list(HANDOVERS))


def alerts(runs: pd.DataFrame) -> pd.DataFrame:
    """Returns what the tracker alerted of, and the env steps at which it first did.

    Args:
        runs: as `RunSet.runs`.

    Returns:
        Columns `run_id`, `name`, `alert` (`collapsed`, `entropy_collapsed`, `non_finite_losses`, `learning_rate`) and
        `step`.
    """
    named = runs["name"].to_dict()
    rows = [
        (str(run_id), str(named[run_id]), str(column).removeprefix(_ALERT), step)
        for column in runs.columns
        if str(column).startswith(_ALERT)
        for run_id, step in pd.to_numeric(runs[column], errors="coerce").dropna().items()
    ]
    frame = pd.DataFrame(rows, columns=list(ALERTS)).astype({"step": "int64"})
    return frame.sort_values(["alert", "step"], ignore_index=True)


def _entries(text: Any) -> list[Any]:
    try:
        entries = json.loads(text)
        return [entry for entry in entries if len(entry) == 4 and int(entry[1]) >= 0]
    except (ValueError, TypeError):  # somebody edited the tag, or it is of another version
        return []
