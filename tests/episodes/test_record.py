"""EpisodeRecord: contradictions are named together, arrays are owned; trades and fragments are derived exactly."""

import itertools

import numpy as np
import pytest

from drl_ray_tracking.episodes import Conventions, EpisodeRecord, EpisodeSummary, Trade
from drl_ray_tracking.episodes.fragments import join_fragments
from drl_ray_tracking.episodes.record import closed_trades
from drl_ray_tracking.errors import ConfigurationError, EpisodeError

from .samples import trading_record


def test_all_contradictions_are_named_at_once():
    with pytest.raises(EpisodeError) as caught:
        EpisodeRecord("much", 3, actions=np.zeros(4, int), equity=np.ones(3), price=["a"] * 4, fee=[[1]], trades=(1,))
    for part in ("episode_return", "actions", "equity", "(4,)", "price", "fee", "trades[0]"):
        assert part in str(caught.value)


@pytest.mark.parametrize("length", [-1, 2.5, None])
def test_a_length_that_is_none_is_refused(length):
    with pytest.raises(EpisodeError, match="length"):
        EpisodeRecord(1.0, length)


def test_conventions_name_every_bad_setting():
    with pytest.raises(ConfigurationError, match=r"periods_per_year.*omega_threshold"):
        Conventions(periods_per_year=-1, omega_threshold=float("nan"))


def test_a_record_owns_its_arrays():
    equity = np.array([1.0, 2.0])
    record = EpisodeRecord(0.0, 1, equity=equity)
    equity[0] = 99.0
    assert record.equity.tolist() == [1.0, 2.0]
    with pytest.raises(ValueError, match="read-only"):
        record.equity[0] = 5.0


def test_round_trips_divide_the_fee_of_a_flip_and_count_the_open_trade():
    position = np.array([0.0, 1.0, 1.0, -3.0, 0.0, 1.0])
    fee = np.array([0.0, 2.0, 0.0, 4.0, 3.0, 5.0])
    gross = np.array([0.0, 0.0, 10.0, 10.0, -6.0, 0.0, 1.0])
    equity = 1000.0 + np.cumsum(gross) - np.concatenate(([0.0], np.cumsum(fee)))
    record = EpisodeRecord(0.0, 6, equity=equity, position=position, fee=fee, timestamp=list("abcdefg"))
    assert record.closed_trades() == (
        Trade("b", "d", 1, 17.0, 3.0, 2),  # 20 - entry 2 - a quarter of 4
        Trade("d", "e", -1, -12.0, 6.0, 1),  # -6 - three quarters of 4 - exit 3
    )
    assert record.open_trades == 1
    assert closed_trades(position, equity, fee, list("abcdefg")) == record.closed_trades()


def test_a_ruin_closes_the_trade_it_happened_in():
    record = EpisodeRecord(0.0, 3, equity=[100.0, 50.0, -5.0, 80.0], position=[1.0, 1.0, 1.0])
    assert record.closed_trades() == (Trade(None, None, 1, -100.0, 0.0, 2),)
    assert record.open_trades == 0


def test_without_positions_trades_are_unknown():
    assert EpisodeRecord(0.0, 1, equity=[1.0, 2.0]).closed_trades() is None
    assert EpisodeRecord(0.0, 1).open_trades is None


@pytest.mark.parametrize("cuts", [(1,), (10, 11), (7, 20, 43)])
def test_joined_fragments_measure_like_the_whole(cuts):
    whole = trading_record(np.random.default_rng(0), 50, terminated=True, truncated=False)
    edges = [0, *cuts, 50]
    parts = []
    for i, (a, b) in enumerate(itertools.pairwise(edges)):
        marks = {name: getattr(whole, name)[a : b + 1] for name in ("equity", "price", "timestamp")}
        steps = {name: getattr(whole, name)[a:b] for name in ("actions", "position", "fee", "traded")}
        parts.append(
            EpisodeRecord(
                whole.episode_return if i == 0 else 0.0,
                b - a,
                terminated=b == 50,
                reward_components=whole.reward_components if i == 0 else {},
                labels=whole.labels,
                conventions=whole.conventions,
                **marks,
                **steps,
            )
        )
    joined, expected = EpisodeSummary.of(join_fragments(parts)), EpisodeSummary.of(whole)
    assert joined.order_key == expected.order_key
    assert joined.compute() == expected.compute()


def test_fragments_that_do_not_join_are_refused_with_every_reason():
    a = EpisodeRecord(0.0, 1, terminated=True, equity=[1.0, 2.0], labels={"symbol": "A"})
    with pytest.raises(EpisodeError, match=r"fragment 0 is terminated.*labels.*equity is in 1 of 2"):
        join_fragments([a, EpisodeRecord(0.0, 1)])
    with pytest.raises(EpisodeError, match="at least one"):
        join_fragments([])
