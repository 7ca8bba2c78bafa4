"""EpisodeSummary: the same bits for any distribution, finite KPIs for anything, bounded size."""

import ast
import contextlib
import functools
import itertools
import logging
import math
import pickle
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import drl_ray_tracking.episodes as package
from drl_ray_tracking.episodes import Conventions, EpisodeRecord, EpisodeSummary
from drl_ray_tracking.episodes.bounded import warn_overflow
from drl_ray_tracking.episodes.summary import merge_all
from drl_ray_tracking.errors import EpisodeError

from .samples import DAILY, trading_record, weird_fields


@functools.cache
def episodes() -> tuple[EpisodeSummary, ...]:
    rng = np.random.default_rng(0)
    return tuple(EpisodeSummary.of(trading_record(rng, int(length))) for length in rng.integers(1, 60, 24))


def assert_close(a: dict[str, float], b: dict[str, float]) -> None:
    assert a.keys() == b.keys()
    for key, value in a.items():
        assert abs(value - b[key]) <= 1e-9 * max(1.0, abs(value), abs(b[key])), (key, value, b[key])


@given(st.permutations(range(24)), st.lists(st.integers(0, 24), max_size=5))
@settings(max_examples=40, deadline=None)
def test_any_distribution_over_workers_gives_the_same_bits(order, cuts):
    edges = [0, *sorted(cuts), 24]
    workers = [[episodes()[i] for i in order[a:b]] for a, b in itertools.pairwise(edges)]
    arrived = [summary for part in workers for summary in pickle.loads(pickle.dumps(part))]
    # Exact equality: not one bit may differ.
    assert merge_all(arrived).compute() == merge_all(episodes()).compute()


@given(st.permutations(range(24)), st.integers(1, 22), st.integers(1, 22))
@settings(max_examples=30, deadline=None)
def test_the_monoid_itself_holds_to_rounding(order, i, j):
    i, j = min(i, j), max(i, j) + 1
    parts = [[episodes()[k] for k in part] for part in (order[:i], order[i:j], order[j:])]
    a, b, c = (functools.reduce(EpisodeSummary.merge, part, EpisodeSummary.empty()) for part in parts)
    whole = a.merge(b).merge(c)
    for other in (a.merge(b.merge(c)), c.merge(b).merge(a), whole.merge(EpisodeSummary.empty())):
        assert whole.order_key == other.order_key
        assert_close(whole.compute(), other.compute())


def test_the_key_is_the_content():
    first = trading_record(np.random.default_rng(1))
    again = trading_record(np.random.default_rng(1))
    keys = {EpisodeSummary.of(first).order_key, EpisodeSummary.of(again).order_key}
    assert len(keys) == 1
    for change in (
        {"episode_return": 1.0},
        {"terminated": not first.terminated},
        {"labels": {"symbol": "X"}},
        {"fee": first.fee + 1.0},
        {"trades": ()},
        {"conventions": Conventions(1.0)},
    ):
        keys.add(EpisodeSummary.of(trading_record(np.random.default_rng(1), **change)).order_key)
    assert len(keys) == 7


def test_pooling_is_not_averaging():
    """iid returns with a true Sharpe of 0.794: averaging 5-bar episodes inflates it, pooling does not."""
    rng = np.random.default_rng(0)
    returns = rng.normal(0.0005, 0.01, (4000, 5))
    summaries = [
        EpisodeSummary.of(EpisodeRecord(0.0, 5, equity=np.cumprod([1.0, *(1.0 + row)]), conventions=Conventions(252.0)))
        for row in returns
    ]
    averaged = np.mean([summary.compute()["trading/sharpe"] for summary in summaries])
    pooled = merge_all(summaries).compute()["trading/sharpe"]
    flat = returns.ravel()
    assert pooled == pytest.approx(flat.mean() / flat.std(ddof=1) * math.sqrt(252), rel=1e-9)
    assert averaged > 1.15 * pooled


def test_three_thousand_weird_records_never_hurt():
    rng = np.random.default_rng(7)
    refused, total = 0, EpisodeSummary.empty()
    for _ in range(3000):
        fields = weird_fields(rng)
        try:
            record = EpisodeRecord(**fields)
        except EpisodeError:
            refused += 1
            continue
        trades = record.closed_trades()
        assert trades is None or len(trades) <= max(record.length, 3)
        summary = EpisodeSummary.of(record)
        total = total.merge(summary)
        for kpis in (summary.compute(), total.compute()) if rng.random() < 0.1 else (summary.compute(),):
            bad = {key: value for key, value in kpis.items() if not math.isfinite(value)}
            assert not bad, fields
        assert all(type(value) is float for value in kpis.values())
        pickle.loads(pickle.dumps(summary))
    assert 0 < refused < 600
    assert total.count == 3000 - refused


COUNTS = (
    *(f"episode/{name}" for name in ("count", "terminated", "truncated", "ruined")),
    *(f"trading/{name}" for name in ("bars", "nan_bars", "trades", "open_trades", "breakeven_trades")),
    "undefined/trading/trades/non_finite",
    "undefined/trading/exposure/nan_bars",
    "undefined/trading/fees/nan_bars",
    "undefined/trading/turnover/nan_bars",
    "undefined/episode/return/non_finite",
    "undefined/episode/calmar_mean/no_bars",
    "undefined/reward/non_finite",
    "undefined/action/non_finite",
    "undefined/action/beyond_64",
)


def test_counts_of_weird_episodes_add_up():
    rng = np.random.default_rng(11)
    parts = []
    while len(parts) < 200:
        with contextlib.suppress(EpisodeError):
            parts.append(EpisodeSummary.of(EpisodeRecord(**weird_fields(rng))))
    whole, single = merge_all(parts).compute(), [part.compute() for part in parts]
    for key in COUNTS:
        assert whole[key] == sum(kpis.get(key, 0.0) for kpis in single) > 0, key


@pytest.mark.parametrize(
    ("equity", "expected"),
    [
        ([1.0, 1.0, 1.0], {"undefined/trading/sharpe/zero_variance": 1, "trading/total_return": 0}),
        ([1.0, 1.1], {"undefined/trading/sharpe/too_few_bars": 1, "trading/bars": 1}),
        ([math.nan] * 3, {"trading/nan_bars": 2, "undefined/trading/total_return/no_bars": 1}),
        ([1.0, 2.0, -1.0, 5.0], {"episode/ruined": 1, "trading/total_return": -1, "trading/max_drawdown": 1}),
        ([0.0, 1.0], {"episode/ruined": 1, "trading/bars": 0, "trading/total_return": -1}),
        ([1.0, math.inf, 1.0], {"episode/ruined": 1, "trading/bars": 1}),
        ([4.0, math.nan, 2.0], {"trading/bars": 1, "trading/nan_bars": 1, "trading/total_return": -0.5}),
        ([1e8, 1e8 + 1, 1e8 + 2], {"undefined/episode/calmar_mean/no_drawdown": 1}),
        ([1e-300, 1e300, 1.0], {"trading/nan_bars": 1}),
    ],
)
def test_hostile_equity(equity, expected):
    record = EpisodeRecord(0.0, len(equity) - 1, equity=equity, conventions=DAILY)
    kpis = EpisodeSummary.of(record).compute()
    for key, value in expected.items():
        assert kpis[key] == pytest.approx(value), (key, kpis)


def test_exposure_turnover_and_fees_keep_numerator_and_denominator():
    one = EpisodeRecord(0.0, 2, equity=[100.0, 100.0, 100.0], position=[0.0, -2.0], fee=[1.0, 2.0], traded=[0.0, 50.0])
    four = EpisodeRecord(
        0.0, 4, equity=[300.0] * 5, position=[1.0, math.nan, 1.0, 1.0], fee=[0.0] * 4, traded=[150.0, 0, 0, 0]
    )
    kpis = EpisodeSummary.of(one).merge(EpisodeSummary.of(four)).compute()
    assert kpis["trading/exposure"] == 4 / 5
    assert kpis["trading/exposure_mean_abs"] == 1.0
    assert kpis["undefined/trading/exposure/nan_bars"] == 1.0
    assert kpis["trading/turnover"] == 200.0 / 400.0
    assert kpis["trading/fees"] == 3.0


def test_outcomes_actions_and_rewards():
    records = [
        EpisodeRecord(1.0, 2, terminated=True, actions=np.array([0, 2]), reward_components={"a": 1.0}),
        EpisodeRecord(4.0, 4, truncated=True, actions=np.array([2, 2, 70, 0]), reward_components={"a": 2.0}),
        EpisodeRecord(math.nan, 1, actions=np.array([[0.5, 1.0]])),
    ]
    kpis = merge_all(map(EpisodeSummary.of, records)).compute()
    assert kpis["episode/count"] == 3
    assert (kpis["episode/terminated"], kpis["episode/truncated"]) == (1, 1)
    assert (kpis["episode/return_mean"], kpis["undefined/episode/return/non_finite"]) == (2.5, 1)
    assert kpis["episode/return_sd"] == pytest.approx(math.sqrt(4.5))
    assert (kpis["episode/length_min"], kpis["episode/length_max"]) == (1, 4)
    assert (kpis["action/0_share"], kpis["action/1_share"], kpis["action/2_share"]) == (2 / 6, 0, 3 / 6)
    assert kpis["undefined/action/beyond_64"] == 1
    assert (kpis["action/0_mean"], kpis["action/1_mean"]) == (0.5, 1.0)
    assert kpis["reward/a_mean"] == 1.5
    assert not [key for key in kpis if "trading" in key]


def test_no_episode_has_a_count_and_nothing_else():
    kpis = merge_all([]).compute()
    assert kpis["episode/count"] == 0
    assert kpis["undefined/episode/return_mean/no_episodes"] == 1
    assert "episode/return_mean" not in kpis


def test_without_periods_annualised_kpis_are_absent_and_with_mixed_ones_too():
    rng = np.random.default_rng(0)
    plain = EpisodeSummary.of(trading_record(rng, conventions=Conventions()))
    kpis = plain.compute()
    assert kpis["undefined/trading/sharpe/no_periods_per_year"] == 1
    assert "trading/sharpe" not in kpis
    assert "trading/sharpe_per_period" in kpis
    mixed = plain.merge(EpisodeSummary.of(trading_record(rng))).compute()
    for key in ("trading/sharpe_per_period", "trading/omega", "episode/calmar_mean"):
        assert mixed[f"undefined/{key}/mixed_conventions"] == 1
        assert key not in mixed
    assert "trading/total_return" in mixed


def test_symbols_are_apart_and_bounded(caplog):
    rng = np.random.default_rng(0)
    records = [trading_record(rng, 10, labels={"symbol": f"S{i:02d}/USD"}) for i in range(40)]
    warn_overflow.cache_clear()
    with caplog.at_level(logging.WARNING):
        kpis = merge_all(map(EpisodeSummary.of, records)).compute()
        backwards = functools.reduce(EpisodeSummary.merge, map(EpisodeSummary.of, records[::-1])).compute()
    assert kpis["undefined/by_symbol/overflow"] == backwards["undefined/by_symbol/overflow"] == 8
    assert len([r for r in caplog.records if "by_symbol" in r.getMessage()]) == 1
    shown = {key.split("/")[2] for key in kpis if key.startswith("trading/by_symbol/")}
    assert shown == {f"S{i:02d}-USD" for i in range(32)}
    own = EpisodeSummary.of(records[3]).compute()
    for name in ("sharpe", "total_return", "max_drawdown", "trades", "bars"):
        assert kpis[f"trading/by_symbol/S03-USD/{name}"] == own[f"trading/{name}"]


@pytest.mark.parametrize(("bars", "limit"), [(300, 6_000), (1_000, 6_000), (100_000, 8_000)])
def test_a_pickled_summary_is_small_whatever_the_number_of_steps(bars, limit):
    summary = EpisodeSummary.of(trading_record(np.random.default_rng(0), bars))
    size = len(pickle.dumps(summary))
    assert size < limit
    assert pickle.loads(pickle.dumps(summary)).compute() == summary.compute()


def test_a_summary_of_an_episode_takes_well_under_a_millisecond():
    record = trading_record(np.random.default_rng(0), 290)
    best = math.inf
    for _ in range(100):
        start = time.process_time_ns()
        EpisodeSummary.of(record)
        best = min(best, time.process_time_ns() - start)
    assert best < 1e6


def test_only_numpy_and_the_standard_library_are_imported():
    allowed = {*sys.stdlib_module_names, "numpy", "drl_ray_tracking"}
    for file in Path(package.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module]
            else:
                continue
            for name in names:
                assert name.split(".")[0] in allowed, (file.name, name)
                house = name.startswith("drl_ray_tracking.")
                assert not house or name.split(".")[1] in {"episodes", "errors"}, (file.name, name)


def test_importing_the_package_loads_nothing_heavy():
    code = (
        "import sys, drl_ray_tracking.episodes; "
        "heavy = {'ray', 'mlflow', 'torch', 'pandas', 'scipy', 'gymnasium', 'pyarrow'} & set(sys.modules); "
        "sys.exit(str(heavy) if heavy else 0)"
    )
    root = Path(package.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
