"""How often a test window was looked at: counted on the experiment, before the look.

A test window answers honestly once; each further look makes it a little more of a validation window. MLflow has
no atomic increment: two looks in the same instant may count as one.
"""

from __future__ import annotations

import getpass
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from drl_ray_tracking import names
from drl_ray_tracking.errors import ConfigurationError

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_KEPT: Final = 20
_PREFIX: Final = f"{names.TAG_TEST_EVALUATIONS}."


@dataclass(frozen=True)
class Look:
    """One evaluation on a test window."""

    user: str
    time_ms: int
    what: str


@dataclass(frozen=True)
class WindowBars:
    """Which bars a window is: the digest of the whole series, whatever it is called, and the first and last of them.

    Attributes:
        data_digest: of the prices.
        first, last: when they end, Unix seconds.
    """

    data_digest: str
    first: float
    last: float

    def shares(self, other: WindowBars | None) -> bool:
        """Tells whether two windows have a bar's return in common."""
        if other is None or other.data_digest != self.data_digest:
            return False
        return self.first < other.last and other.first < self.last


@dataclass(frozen=True)
class WindowBudget:
    """How often a window was evaluated, the last of those looks, the newest at the end, and its bars, where known."""

    count: int
    looks: tuple[Look, ...]
    bars: WindowBars | None = None


def count_test_evaluation(
    client: MlflowClient,
    experiment_id: str,
    window_id: str,
    *,
    what: str,
    time_ms: int,
    user: str | None = None,
    bars: WindowBars | None = None,
) -> int:
    """Adds one look at a test window to the experiment's tag, and returns how many there are now.

    Looks at other windows that share bars with it count as well: with another embargo, or under another symbol, the
    bars are no fresher.

    Args:
        client: of the store.
        experiment_id: whose window it is.
        window_id: 12 hexadecimal digits, see `training.market.window_id`.
        what: what was evaluated, in a few words.
        time_ms: now, Unix milliseconds.
        user: who looks; None for who runs this process.
        bars: which the window's are; None counts its own id alone.
    """
    known = test_budget(client, experiment_id)
    before = known.get(window_id, WindowBudget(0, ()))
    bars = bars or before.bars
    looks = (*before.looks, Look(user or _user(), time_ms, what[:100]))[-_KEPT:]
    text: dict[str, Any] = {
        "count": before.count + 1,
        "looks": [[look.user, look.time_ms, look.what] for look in looks],
    }
    if bars is not None:
        text["bars"] = [bars.data_digest, bars.first, bars.last]
    client.set_experiment_tag(experiment_id, _PREFIX + window_id, json.dumps(text))
    return 1 + looks_at(known, window_id, bars)


def looks_at(budget: Mapping[str, WindowBudget], window_id: str, bars: WindowBars | None) -> int:
    """Returns how often a window was looked at, and every other one that shares bars with it."""
    return sum(
        window.count for id_, window in budget.items() if id_ == window_id or (bars and bars.shares(window.bars))
    )


def test_budget(client: MlflowClient, experiment_id: str) -> dict[str, WindowBudget]:
    """Returns what was spent of an experiment's test windows, by window id; empty where none was looked at.

    Raises:
        ConfigurationError: a tag is not as it was written: the count is unknown, and not zero.
    """
    return _spent(client.get_experiment(experiment_id).tags, experiment_id)


def looks_spent(tags: Mapping[str, str]) -> tuple[int, dict[str, WindowBudget]]:
    """Returns how many looks at test windows an experiment's tags count, and what is known of each window.

    A tag that cannot be read counts as one look.
    """
    total, windows = 0, dict[str, WindowBudget]()
    for key, value in tags.items():
        if key.startswith(_PREFIX):
            try:
                found = _spent({key: value}, "")
            except ConfigurationError:
                total += 1
            else:
                total += sum(window.count for window in found.values())
                windows |= found
    return total, windows


def _spent(tags: Mapping[str, str], experiment_id: str) -> dict[str, WindowBudget]:
    found: dict[str, WindowBudget] = {}
    for key, value in tags.items():
        if key.startswith(_PREFIX):
            try:
                told = json.loads(value)
                looks = tuple(Look(str(user), int(time_ms), str(what)) for user, time_ms, what in told["looks"])
                found[key.removeprefix(_PREFIX)] = WindowBudget(int(told["count"]), looks, _bars(told.get("bars")))
            except (ValueError, KeyError, TypeError) as error:
                raise ConfigurationError(
                    f"the tag {key!r} of experiment {experiment_id} cannot be read, so nobody knows how often the test "
                    f"window was looked at: {value[:200]!r}. Correct it by hand"
                ) from error
    return found


def _bars(told: Any) -> WindowBars | None:
    if told is None:
        return None
    digest, first, last = told
    return WindowBars(str(digest), float(first), float(last))


test_budget.__test__ = False  # type: ignore[attr-defined]  # pytest would take it for a test


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "unknown"
