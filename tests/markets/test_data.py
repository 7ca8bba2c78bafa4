"""Loading: the packaged series, files in every accepted shape, and every violation named at once."""

from __future__ import annotations

import datetime as dt
import hashlib
import importlib.util
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from drl_ray_tracking.errors import DataError
from drl_ray_tracking.markets.data import load_prices, price_digest, price_series

HOURLY = {"timeframe": "1h", "periods_per_year": 8760.0}
GOOD = "Date,Open,High,Low,CLOSE,Volume\n2020-01-01,1,3,1,2,10\n2020-01-02,2,4,2,3,0\n2020-01-03,3,3,2,2.5,7\n"


def written(folder: Path, text: str, name: str = "my.csv") -> str:
    (folder / name).write_text(text)
    return name


def message_of(folder: Path, text: str, **options: object) -> str:
    with pytest.raises(DataError) as caught:
        load_prices(written(folder, text), base_dir=folder, **{**HOURLY, **options})  # type: ignore[arg-type]
    return str(caught.value)


def test_packaged_daily_stock() -> None:
    prices = load_prices("gym_anytrading:GOOGL")
    assert len(prices.frame) == 2335
    assert list(prices.frame.columns) == ["open", "high", "low", "close", "volume"]
    assert (prices.symbol, prices.timeframe, prices.periods_per_year) == ("GOOGL", "1d", 252.0)
    assert prices.frame.index[0] == pd.Timestamp("2009-05-22")
    assert prices.frame.index[-1] == pd.Timestamp("2018-08-29")
    assert prices.frame["close"].iloc[[0, -1]].tolist() == [196.946945, 1264.650024]


def test_packaged_hourly_currency_reads_day_before_month() -> None:
    prices = load_prices("gym_anytrading:EURUSD")
    assert len(prices.frame) == 6225
    assert (prices.symbol, prices.timeframe, prices.periods_per_year) == ("EURUSD", "1h", 6240.0)
    assert prices.frame.index[0] == pd.Timestamp("2017-01-01 22:00")
    assert prices.frame.index[-1] == pd.Timestamp("2017-12-29 21:00")


def test_the_caller_may_override_the_convention_of_a_package() -> None:
    prices = load_prices(
        "gym_anytrading:EURUSD", symbol="EUR", timeframe="60m", periods_per_year=6048, columns=["close"]
    )
    assert (prices.symbol, prices.timeframe, prices.periods_per_year) == ("EUR", "60m", 6048.0)
    assert list(prices.frame.columns) == ["close"]


def test_a_missing_package_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r'pip install "drl-ray-tracking\[demo\]"'):
        load_prices("gym_anytrading:GOOGL")


def test_an_unknown_packaged_name_lists_the_known_ones() -> None:
    with pytest.raises(DataError, match="gym_anytrading:GOOGL, gym_anytrading:EURUSD"):
        load_prices("gym_anytrading:MSFT")


def test_loading_packaged_data_does_not_import_the_package() -> None:
    code = (
        "import sys; from drl_ray_tracking.markets.data import load_prices; load_prices('gym_anytrading:GOOGL');"
        "print(sorted({'gym_anytrading', 'ray', 'mlflow', 'torch', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_csv_is_matched_without_regard_to_case(tmp_path: Path) -> None:
    prices = load_prices(written(tmp_path, GOOD), base_dir=tmp_path, **HOURLY)  # type: ignore[arg-type]
    assert prices.symbol == "my"
    assert prices.source == "my.csv"
    assert prices.frame["close"].tolist() == [2.0, 3.0, 2.5]
    assert prices.frame.dtypes.eq("float64").all()
    assert prices.frame.index.dtype == "datetime64[ns]"


def test_an_absolute_path_ignores_the_base_directory(tmp_path: Path) -> None:
    written(tmp_path, GOOD)
    prices = load_prices(str(tmp_path / "my.csv"), base_dir="elsewhere", **HOURLY)  # type: ignore[arg-type]
    assert len(prices.frame) == 3


@pytest.mark.parametrize("as_index", [True, False])
def test_parquet_gives_the_same_series_as_csv(tmp_path: Path, as_index: bool) -> None:
    from_csv = load_prices(written(tmp_path, GOOD), base_dir=tmp_path, **HOURLY)  # type: ignore[arg-type]
    frame = from_csv.frame if as_index else from_csv.frame.reset_index()
    frame.to_parquet(tmp_path / "my.parquet")
    from_parquet = load_prices("my.parquet", base_dir=tmp_path, **HOURLY)  # type: ignore[arg-type]
    assert from_parquet.digest == from_csv.digest
    pd.testing.assert_frame_equal(from_parquet.frame, from_csv.frame)


def test_only_closes_are_enough_unless_more_is_asked_for(tmp_path: Path) -> None:
    text = "time,close\n2020-01-01,1\n2020-01-02,2\n"
    prices = load_prices(written(tmp_path, text), base_dir=tmp_path, **HOURLY)  # type: ignore[arg-type]
    assert list(prices.frame.columns) == ["close"]
    message = message_of(tmp_path, text, columns=["high", "bid"])
    assert "no column `high` among ['time', 'close']" in message
    assert "['bid']; known are open, high, low, close, volume" in message


@pytest.mark.parametrize(
    ("stamps", "options"),
    [
        (["2020-01-01T00:00:00Z", "2020-01-01T01:00:00Z"], {}),
        (["2020-01-01T02:00:00+02:00", "2020-01-01T01:00:00+00:00"], {}),
        ([1577836800, 1577840400], {"timestamp_unit": "s"}),
        ([1577836800000, 1577840400000], {"timestamp_unit": "ms"}),
        (["01/01/2020 00:00", "01/01/2020 01:00"], {"timestamp_format": "%d/%m/%Y %H:%M"}),
        ([2020010100, 2020010101], {"timestamp_format": "%Y%m%d%H"}),
        (pd.to_datetime(["2020-01-01T01:00+01:00", "2020-01-01T02:00+01:00"]), {}),
    ],
)
def test_every_accepted_way_to_write_a_time(stamps: object, options: dict[str, str]) -> None:
    raw = pd.DataFrame({"when": stamps, "close": [1.0, 2.0]})
    prices = price_series(raw, symbol="X", timestamp_column="When", **HOURLY, **options)  # type: ignore[arg-type]
    assert prices.frame.index.tolist() == [pd.Timestamp("2020-01-01 00:00"), pd.Timestamp("2020-01-01 01:00")]


def test_dates_of_the_standard_library_are_times() -> None:
    raw = pd.DataFrame({"date": [dt.date(2020, 1, 1), dt.date(2020, 1, 2)], "close": [1.0, 2.0]})
    assert price_series(raw, symbol="X", **HOURLY).frame.index[1] == pd.Timestamp("2020-01-02")  # type: ignore[arg-type]


def test_bare_numbers_are_not_taken_for_times(tmp_path: Path) -> None:
    message = message_of(tmp_path, "timestamp,close\n1577836800,1\n1577840400,2\n")
    assert "first 1577836800" in message
    assert "give s, ms, us or ns" in message


def test_ambiguous_dates_are_refused(tmp_path: Path) -> None:
    message = message_of(tmp_path, "date,close\n01.02.2020,1\n02.02.2020,2\n")
    assert "2 value(s) [row 1: 01.02.2020, row 2: 02.02.2020] cannot be parsed (expected ISO 8601" in message


def test_two_time_columns_ask_for_a_choice(tmp_path: Path) -> None:
    text = "Date,Time,close\n2020-01-01,2020-01-01,1\n2020-01-02,2020-01-02,2\n"
    assert "several time columns: 'Date', 'Time'; choose one with timestamp_column" in message_of(tmp_path, text)


def test_no_time_column_lists_what_there_is(tmp_path: Path) -> None:
    assert "among ['when', 'close']" in message_of(tmp_path, "when,close\n2020-01-01,1\n2020-01-02,2\n")


def test_a_missing_file_and_missing_labels_come_together(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load_prices("nowhere.csv", base_dir=tmp_path)
    message = str(caught.value)
    assert "nowhere.csv: no such file" in message
    assert "timeframe is not given" in message
    assert "periods_per_year is not given; it is never inferred" in message


@pytest.mark.parametrize("value", [0.0, -252.0, float("nan"), float("inf")])
def test_periods_per_year_must_be_positive_and_finite(tmp_path: Path, value: float) -> None:
    assert f"periods_per_year is {value}" in message_of(tmp_path, GOOD, periods_per_year=value)


@pytest.mark.parametrize("name", ["my.xlsx", "prices", "my.csv.bak"])
def test_other_files_are_refused(tmp_path: Path, name: str) -> None:
    written(tmp_path, GOOD, name)
    with pytest.raises(DataError, match=r"not a \.csv"):
        load_prices(name, base_dir=tmp_path, **HOURLY)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "content"), [("a.parquet", b"no parquet"), ("a.csv", b""), ("b.csv", b"\xff\xfe\x00,")]
)
def test_a_file_that_is_no_table_is_one_clear_error(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match="cannot be read as a table"):
        load_prices(name, base_dir=tmp_path, **HOURLY)  # type: ignore[arg-type]


def test_every_violation_is_named_in_one_error(tmp_path: Path) -> None:
    text = (
        "timestamp,open,high,low,close,volume\n"
        "2020-01-01,1,2,1,1.5,5\n"
        "2020-01-03,1,2,1,,5\n"
        "2020-01-02,1,2,3,1.5,-5\n"
        "2020-01-02,1,2,1,-7,5\n"
        "soon,inf,2,1,0,abc\n"
        "2020-01-09,1,2,1,2.5,5\n"
    )
    message = message_of(tmp_path, text, minimum_bars=10)
    for expected in (
        "6 rows, at least 10 are needed",
        "1 value(s) [row 5: soon] cannot be parsed",
        "1 value(s) [row 3: 2020-01-02] come before the row above",
        "1 value(s) [row 4: 2020-01-02] are duplicates",
        "open: 1 value(s) [row 5: inf] are infinite",
        "close: 1 value(s) [row 2: nan] are missing or not numbers",
        "close: 2 value(s) [row 4: -7.0, row 5: 0.0] are not positive",
        "volume: 1 value(s) [row 5: abc] are missing or not numbers",
        "volume: 1 value(s) [row 3: -5] are negative",
        "high < low in 1 rows, first at data row 3: 2 < 3",
        "high < close in 1 rows, first at data row 6: 2 < 2.5",
        "open < low in 1 rows, first at data row 3: 1 < 3",
    ):
        assert expected in message, message


def test_many_offenders_are_counted_and_the_first_shown() -> None:
    raw = pd.DataFrame({"close": [0.0] * 9}, index=pd.date_range("2020", periods=9))
    with pytest.raises(DataError, match=r"close: 9 value\(s\) \[row 1: 0\.0, row 2: 0\.0, row 3: 0\.0, \.\.\.\]"):
        price_series(raw, symbol="X", **HOURLY)  # type: ignore[arg-type]


def test_a_column_given_twice_is_refused(tmp_path: Path) -> None:
    text = "date,close,CLOSE\n2020-01-01,1,1\n2020-01-02,2,2\n"
    assert "column `close` appears 2 times" in message_of(tmp_path, text)


def test_the_digest_follows_its_definition_and_sees_every_part() -> None:
    index = pd.DatetimeIndex(["2020-01-01", "2020-01-02"]).as_unit("ns")
    frame = pd.DataFrame({"close": [1.0, 2.0]}, index=index)
    nanoseconds = 1_577_836_800 * 10**9
    content = b'["close"]\0' + struct.pack("<qqdd", nanoseconds, nanoseconds + 86_400 * 10**9, 1.0, 2.0)
    assert price_digest(frame) == hashlib.sha256(content).hexdigest()
    assert price_digest(frame.set_axis(index.as_unit("s"))) == price_digest(frame)
    different = [
        frame.rename(columns={"close": "open"}),
        frame.set_axis(index + pd.Timedelta(1, "ns")),
        frame * np.nextafter(1.0, 2.0),
        frame.iloc[:1],
    ]
    assert len({price_digest(other) for other in [frame, *different]}) == 5
