"""Trading sources: what is found, and what an error says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from drl_ray_tracking.capture.presets import trading_source
from drl_ray_tracking.capture.sources import FromCallable, KeyMap, TradingColumns, WhereTraded
from drl_ray_tracking.capture.steps import EpisodeSteps, steps_of
from drl_ray_tracking.errors import ConfigurationError, EpisodeError
from tests.capture.episodes import chunks_of, market


def test_the_key_map_reads_marks_and_steps() -> None:
    infos = market(5)
    columns = KeyMap().read(steps_of(chunks_of(infos)))
    assert columns is not None
    for name in ("equity", "price", "timestamp"):
        assert getattr(columns, name) == [info[name] for info in infos]
    for name in ("position", "fee", "traded"):
        assert getattr(columns, name) == [info[name] for info in infos[1:]]
    assert columns.periods_per_year == 252.0
    assert columns.source == "info keys (equity)"


@pytest.mark.parametrize(
    ("reported", "read"),
    [(252, 252.0), (np.int64(252), 252.0), (np.float32(12), 12.0), (True, None), ("252", None), (None, None)],
)
def test_periods_per_year_of_any_number_type(reported: Any, read: float | None) -> None:
    columns = KeyMap().read(steps_of(chunks_of(market(2, periods_per_year=reported))))
    assert columns is not None
    assert columns.periods_per_year == read


def test_the_last_info_may_be_missing() -> None:
    infos: list[Any] = [*market(4)[:-1], None]
    columns = WhereTraded().read(steps_of(chunks_of(infos)))
    assert columns is not None
    assert columns.equity == [*(info["equity"] for info in infos[:-1]), None]
    assert columns.periods_per_year == 252.0


@pytest.mark.parametrize(
    ("infos", "there"), [([{}, {"worth": 1.0, "cash": 2}], "cash, worth"), ([{}, {}], "none"), ([{}, None], "none")]
)
def test_a_wrong_key_map_names_the_keys_that_are_there(infos: list[Any], there: str) -> None:
    with pytest.raises(EpisodeError, match=rf"no info has the equity key 'nav'; keys that are there: {there}$"):
        KeyMap(equity="nav").read(steps_of(chunks_of(infos)))


def test_a_key_someone_wrote_and_nobody_reports_is_a_problem_of_its_column_only() -> None:
    columns = KeyMap(fee="commission", periods_per_year="bars").read(steps_of(chunks_of([{}, {"equity": 1.0}])))
    assert columns is not None
    assert (columns.equity, columns.fee, columns.price) == ([None, 1.0], None, None)
    assert columns.problems == (
        "no info has the fee key 'commission'; keys that are there: equity",
        "no info has the periods_per_year key 'bars'; keys that are there: equity",
    )


def test_the_default_finds_nothing_where_nothing_is_traded() -> None:
    assert WhereTraded().read(steps_of(chunks_of([{}, {"score": 1}]))) is None


def test_what_trading_may_be() -> None:
    def read(steps: EpisodeSteps) -> TradingColumns | None:
        return TradingColumns(equity=steps.column("nav", skip_reset=False))

    assert trading_source(None) == WhereTraded()
    assert trading_source({"equity": "nav"}) == KeyMap(equity="nav")
    own = KeyMap(fee="cost")
    assert trading_source(own) is own
    assert trading_source(read) == FromCallable(read)
    columns = trading_source(read).read(steps_of(chunks_of([{"nav": 1.0}, {"nav": 2.0}])))
    assert columns is not None
    assert columns.equity == [1.0, 2.0]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"equty": "nav"}, r"unknown columns 'equty' \(did you mean 'equity'\?\); allowed are equity, position, price"),
        ({"equity": "nav", 3: "x"}, "unknown columns '?3'?"),
        (7, "trading=7 is not understood: give a preset's name"),
    ],
)
def test_what_trading_may_not_be(given: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        trading_source(given)
