"""Each window counts once, whatever RLlib did."""

from __future__ import annotations

from itertools import permutations

import pytest

from drl_ray_tracking.capture.measured import AgentSummary, Measured
from drl_ray_tracking.capture.windows import one_per_window
from drl_ray_tracking.episodes import EpisodeRecord, EpisodeSummary


def episode(earned: float, window: str, agents: tuple[float, ...] = ()) -> Measured:
    def summary(value: float) -> EpisodeSummary:
        return EpisodeSummary.of(EpisodeRecord(value, 3))

    return Measured(summary(earned), window, tuple(AgentSummary(str(a), "m", summary(a)) for a in agents))


@pytest.mark.parametrize(
    ("given", "expected", "kept", "repeated", "missing"),
    [
        ([], None, 0, 0, 0),
        ([], 3, 0, 0, 3),
        ([(1.0, "a"), (2.0, "b"), (3.0, "c")], 3, 3, 0, 0),
        ([(1.0, "a"), (2.0, "b"), (3.0, "a")], 3, 2, 1, 1),
        ([(1.0, "30"), (2.0, "30"), (1.0, "30")], None, 2, 1, 0),
        ([(1.0, ""), (2.0, ""), (1.0, "")], None, 3, 0, 0),
        ([(1.0, "a"), (1.0, "a"), (2.0, "")], 2, 2, 1, 0),
    ],
)
def test_counts(given: list[tuple[float, str]], expected: int | None, kept: int, repeated: int, missing: int) -> None:
    windows = one_per_window([episode(*each) for each in given], expected=expected)
    assert (len(windows.episodes), windows.repeated, windows.missing) == (kept, repeated, missing)


def test_which_repetition_is_kept_does_not_depend_on_the_order() -> None:
    agents = [episode(5.0, "c", (2.0, 3.0)), episode(5.0, "c", (1.0, 4.0))]
    episodes = [episode(1.0, "a"), episode(2.0, "a"), episode(3.0, "b"), *agents]
    kept = {tuple(item.key for item in one_per_window(order, expected=3).episodes) for order in permutations(episodes)}
    assert len(kept) == 1
    assert len(kept.pop()) == 3
