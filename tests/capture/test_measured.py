"""What is sent of an episode, and how many of them become KPIs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drl_ray_tracking.capture.measured import MAX_AGENTS, AgentSummary, Measured, Measurement, kpis, window_of
from drl_ray_tracking.capture.steps import steps_of
from drl_ray_tracking.episodes import EpisodeRecord, EpisodeSummary
from tests.capture.episodes import chunks_of, market, multi_agent_chunks


def fail(where: str, error: Exception) -> None:
    raise AssertionError(where) from error


def measured(chunks: list[Any], measurement: Measurement | None = None) -> Measured:
    return (measurement or Measurement()).of(chunks, fail)[0]


@dataclass(frozen=True)
class Longest:
    """A user's KPI, under a group of its own and under one of ours."""

    name: str = "longest"

    def empty(self) -> int:
        return 0

    def of(self, record: EpisodeRecord) -> int:
        return record.length

    def merge(self, a: int, b: int) -> int:
        return max(a, b)

    def compute(self, state: int) -> dict[str, float]:
        return {"longest": float(state), "trading/longest": float(state)}


def test_a_users_kpi_goes_under_user_unless_it_chose_a_group() -> None:
    values = dict(kpis([measured(chunks_of(market(n)), Measurement(metrics=(Longest(),))) for n in (3, 7, 5)]))
    assert values["user/longest"] == values["trading/longest"] == 7.0


@settings(max_examples=25, deadline=None)
@given(st.randoms(use_true_random=False), st.sets(st.integers(1, 29)))
def test_order_and_cuts_change_no_bit(random: Any, cuts: set[int]) -> None:
    lengths = [30, 12, 30, 7, 3]
    whole = [measured(chunks_of(market(n, seed=n))) for n in lengths]
    cut = [measured(chunks_of(market(n, seed=n), cuts=tuple(cuts))) for n in lengths]
    random.shuffle(cut)
    assert dict(kpis(whole)) == dict(kpis(cut))


@pytest.mark.parametrize("cuts", [(), (2, 3)])
def test_a_multi_agent_episode(cuts: tuple[int, ...]) -> None:
    values = dict(kpis([measured(multi_agent_chunks(cuts=cuts))]))
    assert values["episode/count"] == 1.0
    assert values["episode/return_mean"] == 6.0 + 12.0 + 12.0
    assert values["episode/length_mean"] == 6.0
    assert values["reward/market_mean"] == 0.5 * (6 + 6 + 4)
    assert not any(key.startswith("trading/") for key in values)
    assert values["module/even/episode/count"] == 2.0
    assert values["module/even/episode/return_mean"] == 9.0
    assert values["module/even/trading/bars"] == 10.0
    assert values["module/odd/trading/bars"] == 6.0
    assert values["agent/a2/episode/length_mean"] == 4.0
    assert np.isfinite(values["agent/a1/trading/sharpe"])


def test_a_single_agent_has_no_agent_groups() -> None:
    assert not [key for key, _ in kpis([measured(chunks_of(market(3)))]) if key.startswith(("agent/", "module/"))]


def test_agents_are_bounded_and_their_ids_never_split_a_path() -> None:
    summary = EpisodeSummary.of(EpisodeRecord(1.0, 2))
    agents = tuple(AgentSummary(f"team/{i:02d}", "p", summary) for i in range(MAX_AGENTS + 3))
    values = dict(kpis([Measured(summary, "", agents)]))
    assert values["undefined/agent/overflow"] == 3.0
    assert values["agent/team-00/episode/count"] == 1.0
    assert values["module/p/episode/count"] == MAX_AGENTS + 3
    assert f"agent/team-{MAX_AGENTS}/episode/count" not in values


@pytest.mark.parametrize(
    ("labels", "window"),
    [
        ({}, ""),
        ({"window": "random", "symbol": "X"}, ""),
        ({"window": None}, ""),
        ({"window": "3", "symbol": "X", "split": "test", "fold": "1"}, "X|test|1|3"),
        ({"window": 0}, "|||0"),
    ],
)
def test_the_window_of_an_episode(labels: dict[str, Any], window: str) -> None:
    assert window_of(steps_of(chunks_of(market(2, **labels)))) == window
