"""Evaluation bars as columns, as one table, and as a file that gives back the same numbers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pyarrow.parquet as pq
import pytest
from pyarrow.fs import LocalFileSystem

from drl_ray_tracking.capture import series
from drl_ray_tracking.capture.measured import Measurement
from drl_ray_tracking.capture.series import series_columns, series_table, write_series
from tests.capture.episodes import chunks_of, market, multi_agent_chunks

NAMES = [
    "iteration", "step", "episode", "symbol", "window", "split", "fold", "agent", "periods_per_year", "bar",
    "timestamp", "equity", "price", "position", "fee", "reward", "action", "reward/cost", "reward/market",
]  # fmt: skip


def columns_of(chunks: list[Any]) -> list[dict[str, Any]]:
    _, parts = Measurement().of(chunks, lambda where, error: pytest.fail(f"{where}: {error}"))
    return [columns for part in parts if (columns := series_columns(*part)) is not None]


def test_the_table_of_two_episodes() -> None:
    first, second = market(4, seed=1, symbol="A", window="0"), market(6, seed=2, symbol="B", window="1")
    episodes = [*columns_of(chunks_of(first)), *columns_of(chunks_of(second))]
    table = series_table(episodes, iteration=7, step=1234)
    assert table.column_names == NAMES
    rows = table.to_pylist()
    assert len(rows) == 5 + 7
    assert {(row["iteration"], row["step"], row["periods_per_year"]) for row in rows} == {(7, 1234, 252.0)}
    assert [row["bar"] for row in rows] == [*range(5), *range(7)]
    assert [row["symbol"] for row in rows] == ["A"] * 5 + ["B"] * 7
    assert [row["equity"] for row in rows] == [info["equity"] for info in first + second]
    assert [row["timestamp"] for row in rows[:3]] == [0.0, 86_400.0, 172_800.0]
    for name in ("position", "fee", "reward", "action"):
        assert [index for index, row in enumerate(rows) if np.isnan(row[name])] == [0, 5]
    assert [row["reward"] for row in rows[1:5]] == [0.0, 0.5, 1.0, 1.5]
    assert [row["action"] for row in rows[1:5]] == [0.0, 1.0, 2.0, 0.0]
    assert [row["reward/cost"] for row in rows[1:5]] == [-0.25] * 4 and np.isnan(rows[0]["reward/cost"])


def test_a_trace_has_what_its_episode_has() -> None:
    levered = [{**info, "leverage": 2.5} for info in market(3)]
    wide = gym.spaces.Box(-1.0, 1.0, (10,), np.float32)
    moves = [np.full(10, 0.1 * t, np.float32) + np.arange(10, dtype=np.float32) for t in range(3)]
    (columns,) = columns_of(chunks_of(levered, action_space=wide, actions=moves))
    assert columns["leverage"].tolist()[1:] == [2.5] * 3 and columns["leverage"].dtype == np.float32
    assert [name for name in columns if name.startswith("action/")] == [f"action/{n}" for n in range(8)]
    np.testing.assert_array_equal(columns["action/7"][1:], [move[7] for move in moves])
    assert np.isnan(columns["action"]).all()
    both = series_table([columns, *columns_of(chunks_of(market(3)))], iteration=1, step=0)
    assert both.column("leverage").null_count == 4, "an episode without leverage has none"


def test_a_trace_is_bounded_and_the_returns_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    many = [{**info, "reward_components": {f"c{n:02d}": 1.0 for n in range(40)}} for info in market(4)]
    (columns,) = columns_of(chunks_of(many))
    assert [name for name in columns if name.startswith("reward/")] == [f"reward/c{n:02d}" for n in range(16)]
    monkeypatch.setattr(series, "TRACED_BARS", 3)
    (columns,) = columns_of(chunks_of(many))
    assert not [name for name in columns if "/" in name]
    assert len(columns["equity"]) == 5


def test_a_component_that_only_some_steps_report_is_missing_in_the_others() -> None:
    infos = market(3)
    infos[2] = {**infos[2], "reward_components": {"market": 1.0}}
    infos[3] = {key: value for key, value in infos[3].items() if key != "reward_components"}
    (columns,) = columns_of(chunks_of(infos))
    assert np.isnan(columns["reward/cost"]).tolist() == [True, False, True, True]
    assert np.isnan(columns["reward/market"]).tolist() == [True, False, False, True]


def test_an_episode_that_does_not_trade_has_no_series() -> None:
    assert columns_of(chunks_of([{}, {}])) == []


def test_each_agent_has_its_own_path() -> None:
    table = series_table(columns_of(multi_agent_chunks()), iteration=1, step=0)
    assert table.column("agent").to_pylist() == ["a0"] * 7 + ["a1"] * 7 + ["a2"] * 5


def test_dates_stay_readable_beside_numbers() -> None:
    dated = [{**info, "timestamp": f"2020-01-0{day + 1}"} for day, info in enumerate(market(2))]
    untimed = [{key: value for key, value in info.items() if key != "timestamp"} for info in market(1)]
    episodes = [*columns_of(chunks_of(dated)), *columns_of(chunks_of(untimed))]
    stamps = series_table(episodes, iteration=1, step=0).column("timestamp").to_pylist()
    assert stamps == ["2020-01-01", "2020-01-02", "2020-01-03", "nan", "nan"]


@pytest.mark.parametrize("stored", [True, False])
def test_the_file_lies_in_the_trials_storage_and_a_repeat_overwrites_it(tmp_path: Path, stored: bool) -> None:
    algorithm = SimpleNamespace(logdir=str(tmp_path / "local"))
    if stored:
        algorithm._storage = SimpleNamespace(storage_filesystem=LocalFileSystem(), trial_fs_path=str(tmp_path / "fs"))
    table = series_table(columns_of(chunks_of(market(4))), iteration=3, step=99)
    for _ in range(2):
        path = write_series(algorithm, table, iteration=3)
    folder = tmp_path / ("fs" if stored else "local") / "drl_series"
    assert Path(path) == folder / "iteration-000003.parquet"
    assert [file.name for file in folder.iterdir()] == ["iteration-000003.parquet"]
    assert pq.read_table(path).select(["bar", "equity"]).equals(table.select(["bar", "equity"]))
