"""Which sweep is meant by what somebody typed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import pandas as pd

from drl_ray_tracking import names
from drl_ray_tracking.errors import ConfigurationError

_LISTED: Final = 12


def choose_sweep(parents: pd.DataFrame, which: str, also: Iterable[str] = ()) -> str:
    """Returns the sweep id of a sweep given by `latest`, sweep id, parent run id or parent run name.

    Args:
        parents: the sweeps' parent runs, as `RunSet.parents`.
        which: how the sweep is given.
        also: sweep ids known without a parent run.

    Raises:
        ConfigurationError: there is none, or there are several of that name.
    """
    if not len(parents):
        if which in set(also):
            return which
        raise ConfigurationError(f"there is no sweep {which!r}: these runs have no parent run at all")
    newest_first = parents.sort_values("start_ms", ascending=False)
    if which == "latest":
        return str(newest_first["sweep_id"].iloc[0])
    found = newest_first[(newest_first["sweep_id"] == which) | (newest_first.index == which)]
    if found.empty and which in set(also):
        return which
    if found.empty:
        found = newest_first[newest_first["name"] == which]
    if len(found) > 1:
        raise ConfigurationError(
            f"{len(found)} sweeps are named {which!r}: give one by its id, newest first: {', '.join(found['sweep_id'])}"
        )
    if found.empty:
        known = [str(name) for name in newest_first["name"]]
        raise ConfigurationError(
            f"there is no sweep {which!r}{names.suggestion(which, known)}. Newest first there are: "
            f"{', '.join(known[:_LISTED])}; 'latest' takes the newest, a sweep id or parent run id works too"
        )
    return str(found["sweep_id"].iloc[0])
