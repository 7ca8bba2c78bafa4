"""Records of finished steps: what is read, and what a broken part costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drl_ray_tracking.capture.records import record_of, whole_of
from drl_ray_tracking.capture.sources import FromCallable, KeyMap, TradingSource, WhereTraded
from drl_ray_tracking.capture.steps import steps_of
from drl_ray_tracking.episodes import Conventions, EpisodeRecord, EpisodeSummary
from tests.capture.episodes import chunks_of, market


def recorded(
    chunks: list[Any], source: TradingSource | None = None, conventions: Conventions | None = None
) -> tuple[EpisodeRecord, list[str]]:
    said: list[str] = []
    record = record_of(
        steps_of(chunks), source or WhereTraded(), conventions, lambda where, error: said.append(f"{where}: {error}")
    )
    return record, said


def test_everything_is_read() -> None:
    record, said = recorded(chunks_of(market(6, symbol="GOOGL", split="train", fold=2, window=""), terminated=True))
    assert not said
    assert record.episode_return == 0.5 * 15
    assert (record.length, record.terminated, record.truncated) == (6, True, False)
    assert record.actions is not None
    assert record.actions.tolist() == [0, 1, 2, 0, 1, 2]
    assert record.reward_components == {"market": 3.0, "cost": -1.5}
    assert record.labels == {"symbol": "GOOGL", "split": "train", "fold": "2", "trading_source": "info keys (equity)"}
    assert record.equity is not None
    assert record.equity.shape == (7,)
    assert record.conventions == Conventions(periods_per_year=252.0)


def test_given_conventions_win_and_are_completed() -> None:
    chunks = chunks_of(market(3))
    assert recorded(chunks, conventions=Conventions(365.0))[0].conventions.periods_per_year == 365.0
    completed = recorded(chunks, conventions=Conventions(risk_free_rate=0.001))[0].conventions
    assert completed == Conventions(252.0, 0.001)


def exploding(_: Any) -> Any:
    raise RuntimeError("boom")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (FromCallable(exploding), "trading source: boom"),
        (FromCallable(lambda _: {"equity": [1.0]}), "trading source: trading= returned a dict: return TradingColumns"),  # type: ignore[arg-type, return-value]
        (KeyMap(equity="nav"), "trading source: no info has the equity key 'nav'"),
        (KeyMap(equity="symbol"), "equity: expected an array of real numbers"),
    ],
)
def test_a_broken_source_costs_the_trading_columns_only(source: TradingSource, message: str) -> None:
    record, said = recorded(chunks_of(market(4, symbol="X")), source)
    assert len(said) == 1
    assert message in said[0]
    assert record.equity is None
    assert (record.length, record.labels) == (4, {"symbol": "X"})
    assert record.reward_components == {"market": 2.0, "cost": -1.0}


def test_a_missing_column_is_said_and_the_others_are_used() -> None:
    record, said = recorded(chunks_of(market(4)), KeyMap(fee="commission"))
    assert len(said) == 1
    assert said[0].startswith("trading source: no info has the fee key 'commission'; keys that are there: equity, fee")
    assert record.fee is None
    assert record.equity is not None
    assert record.position is not None


@pytest.mark.parametrize("components", [5, {"market": "up"}, {"market": None}, ["market"]])
def test_broken_reward_components_cost_themselves_only(components: Any) -> None:
    record, said = recorded(chunks_of(market(4, reward_components=components)))
    assert len(said) == 1
    assert said[0].startswith("info['reward_components']: ")
    assert record.reward_components == {}
    assert record.equity is not None


def test_components_that_come_and_go_are_summed() -> None:
    infos: list[Any] = [
        {},
        {"reward_components": {"a": np.float32(0.5)}},
        {"reward_components": {"b": 2}},
        {"reward_components": None},
        {},
    ]
    record, said = recorded(chunks_of(infos))
    assert (record.reward_components, said) == ({"a": 0.5, "b": 2.0}, [])


@pytest.mark.parametrize("last", [{"a": 0.1, "b": 0.2}, {"a": 0.1}, {"a": 0.1, "b": 0.2, "c": 0.3}])
def test_components_of_every_step_sum_to_the_bits_of_a_loop(last: dict[str, float]) -> None:
    rng = np.random.default_rng(0)
    parts = [{"a": value, "b": value**3} for value in rng.normal(0, 1e3, 300)] + [last]
    record, said = recorded(chunks_of([{}, *({"reward_components": part} for part in parts)]))
    expected: dict[str, float] = {}
    for part in parts:
        for name, value in part.items():
            expected[name] = expected.get(name, 0.0) + float(value)
    assert (record.reward_components, said) == (expected, [])


@pytest.mark.parametrize(
    ("actions", "kind"), [([["buy"], [1, 2]], None), (["buy", "sell"], None), ([True, False], "i")]
)
def test_odd_actions_are_no_error(actions: list[Any], kind: str | None) -> None:
    steps = steps_of(chunks_of(market(2)))
    object.__setattr__(steps, "actions", actions)
    record = record_of(steps, WhereTraded(), None, lambda *_: pytest.fail("an error was reported"))
    assert (None if record.actions is None else record.actions.dtype.kind) == kind


def test_the_whole_of_two_agents() -> None:
    one, _ = recorded(chunks_of(market(3, symbol="X", window="7")))
    two, _ = recorded(chunks_of(market(5, symbol="Y", window="7")))
    whole = whole_of([one, two], length=5, terminated=False, truncated=True)
    assert whole.episode_return == one.episode_return + two.episode_return
    assert whole.reward_components == {"market": 4.0, "cost": -2.0}
    assert (whole.length, whole.truncated, whole.labels, whole.equity) == (5, True, {"window": "7"}, None)
    assert whole_of([], length=0, terminated=True, truncated=False).episode_return == 0.0


KEYS = ["equity", "position", "price", "fee", "timestamp", "traded", "periods_per_year", "reward_components"]
ODD = st.one_of(
    st.none(),
    st.floats(),
    st.integers(),
    st.booleans(),
    st.text(max_size=3),
    st.lists(st.floats(), max_size=2),
    st.dictionaries(st.text(max_size=2), st.floats(), max_size=2),
    st.just(np.array([1.0, 2.0])),
)
INFO = st.one_of(
    st.none(),
    st.dictionaries(st.sampled_from([*KEYS, "symbol", "window", "split"]), ODD, max_size=6),
    st.fixed_dictionaries({"equity": st.floats(allow_nan=True), "position": st.floats()}),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(INFO, min_size=1, max_size=8))
def test_any_infos_give_a_record_and_finite_kpis(infos: list[Any]) -> None:
    record, _ = recorded(chunks_of(infos, rewards=[1.0] * (len(infos) - 1)))
    kpis = EpisodeSummary.of(record).compute()
    assert record.length == len(infos) - 1
    assert all(np.isfinite(value) for value in kpis.values())
