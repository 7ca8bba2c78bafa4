"""Evaluation bars as columns, as one table, and as a file that gives back the same numbers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from pyarrow.fs import LocalFileSystem

from drl_ray_tracking.capture.measured import Measurement
from drl_ray_tracking.capture.series import series_columns, series_table, write_series
from tests.capture.episodes import chunks_of, market, multi_agent_chunks

NAMES = [
    "iteration", "step", "episode", "symbol", "window", "split", "fold", "agent", "periods_per_year", "bar",
    "timestamp", "equity", "price", "position", "fee", "reward", "action",
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
