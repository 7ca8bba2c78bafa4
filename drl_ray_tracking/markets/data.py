"""Loads OHLCV price series and refuses bad ones, naming every violation at once.

Nothing is repaired or guessed here: no filling, sorting, date-format guessing or inferred calendar.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from drl_ray_tracking.errors import DataError

COLUMNS: Final = ("open", "high", "low", "close", "volume")
_TIMESTAMP_NAMES: Final = ("timestamp", "date", "datetime", "time")
_EPOCH_UNITS: Final[dict[str | None, Literal["s", "ms", "us", "ns"]]] = {
    "s": "s",
    "ms": "ms",
    "us": "us",
    "ns": "ns",
}
_PACKAGE: Final = "gym_anytrading"
_SHOWN: Final = 3


@dataclass(frozen=True, eq=False)
class PriceSeries:
    """Holds one symbol's validated bars and what identifies them.

    Attributes:
        frame: float64 columns, lower-case, out of open, high, low, close, volume (`close` always);
            the index is strictly increasing datetime64[ns], UTC without a zone.
        symbol, timeframe: "GOOGL", "1d".
        periods_per_year: bars per year, as stated by the source's convention or the caller.
        digest: sha256 (hex) of column names, index nanoseconds and values: equal in every process.
        source: where it came from, as the caller wrote it.
    """

    frame: pd.DataFrame
    symbol: str
    timeframe: str
    periods_per_year: float
    digest: str
    source: str


@dataclass(frozen=True)
class _PackagedFile:
    file: str
    timestamp_column: str
    timestamp_format: str
    timeframe: str
    periods_per_year: float


_PACKAGED: Final = {
    "GOOGL": _PackagedFile("STOCKS_GOOGL.csv", "Date", "%Y-%m-%d", "1d", 252.0),
    # 24 hours, 5 days, 52 weeks: the convention of a market that closes at weekends only.
    "EURUSD": _PackagedFile("FOREX_EURUSD_1H_ASK.csv", "Time", "%d.%m.%Y %H:%M:%S.%f", "1h", 24.0 * 5 * 52),
}


def load_prices(
    source: str,
    *,
    symbol: str | None = None,
    timeframe: str | None = None,
    periods_per_year: float | None = None,
    base_dir: str | Path | None = None,
    columns: Sequence[str] | None = None,
    timestamp_column: str | None = None,
    timestamp_format: str | None = None,
    timestamp_unit: str | None = None,
    minimum_bars: int = 2,
) -> PriceSeries:
    """Loads a price series from an installed package or from a CSV or Parquet file.

    Args:
        source: "gym_anytrading:GOOGL" (daily, 252 periods a year), "gym_anytrading:EURUSD" (hourly, 6240),
            or a path ending in .csv, .csv.gz or .parquet.
        symbol: label; by default the package's name of it, or the file's stem.
        timeframe: bar length, e.g. "1h"; required for files.
        periods_per_year: bars per year; required for files, for packaged data it replaces the convention.
        base_dir: directory a relative path starts from; by default the working directory.
        columns: columns needed and kept, beside `close`; by default every known one the file has.
        timestamp_column: name of the time column; by default the one named timestamp, date, datetime or time,
            in any case (or the datetime index a Parquet file carries).
        timestamp_format: strptime format; by default ISO 8601 and nothing else.
        timestamp_unit: "s", "ms", "us" or "ns" for numbers counted from the epoch.
        minimum_bars: how many bars are too few below.

    Raises:
        DataError: naming every violation, with counts and the first offending rows.
    """
    if source.startswith(f"{_PACKAGE}:"):
        name = source.partition(":")[2]
        path, packaged = _packaged_file(name)
        symbol = symbol or name
        timeframe = timeframe or packaged.timeframe
        periods_per_year = packaged.periods_per_year if periods_per_year is None else periods_per_year
        timestamp_column, timestamp_format = packaged.timestamp_column, packaged.timestamp_format
    else:
        path = Path(base_dir or ".") / source
        symbol = symbol or path.name.partition(".")[0]
    problems = _missing_labels(timeframe, periods_per_year)
    try:
        raw = _read(path, source)
    except DataError as error:
        raise DataError("; ".join([str(error), *problems])) from error
    return price_series(
        raw,
        symbol=symbol,
        timeframe=timeframe,
        periods_per_year=periods_per_year,
        columns=columns,
        timestamp_column=timestamp_column,
        timestamp_format=timestamp_format,
        timestamp_unit=timestamp_unit,
        minimum_bars=minimum_bars,
        source=source,
    )


def price_series(
    raw: pd.DataFrame,
    *,
    symbol: str,
    timeframe: str | None,
    periods_per_year: float | None,
    columns: Sequence[str] | None = None,
    timestamp_column: str | None = None,
    timestamp_format: str | None = None,
    timestamp_unit: str | None = None,
    minimum_bars: int = 2,
    source: str = "frame",
) -> PriceSeries:
    """Validates a frame the caller already holds and turns it into a `PriceSeries`.

    Times without a zone are taken as UTC, others are converted to it. Arguments as in `load_prices`.

    Raises:
        DataError: naming every violation, with counts and the first offending rows.
    """
    problems = _missing_labels(timeframe, periods_per_year)
    if len(raw) < minimum_bars:
        problems.append(f"{len(raw)} rows, at least {minimum_bars} are needed")
    index = _timestamps(raw, timestamp_column, timestamp_format, timestamp_unit, problems)
    values = _numbers(raw, columns, problems)
    _check_candles(values, problems)
    if problems or index is None or timeframe is None or periods_per_year is None:
        listed = "\n".join(f"- {problem}" for problem in problems)
        raise DataError(f"{source}: {len(problems)} violation(s)\n{listed}")
    frame = pd.DataFrame(values, index=index, dtype="float64")
    frame.index.name = "timestamp"
    return PriceSeries(frame, symbol, timeframe, float(periods_per_year), price_digest(frame), source)


def price_digest(frame: pd.DataFrame) -> str:
    """Returns the sha256 (hex) of column names, index nanoseconds and values, little-endian, row by row."""
    nanoseconds = frame.index.to_numpy(dtype="datetime64[ns]").astype("<i8")
    values = np.ascontiguousarray(frame.to_numpy(dtype="<f8") + 0.0)  # + 0.0: -0.0 and 0.0 are one volume
    names = json.dumps([str(name) for name in frame.columns])
    return hashlib.sha256(names.encode() + b"\0" + nanoseconds.tobytes() + values.tobytes()).hexdigest()


def _packaged_file(name: str) -> tuple[Path, _PackagedFile]:
    if name not in _PACKAGED:
        known = ", ".join(f"{_PACKAGE}:{key}" for key in _PACKAGED)
        raise DataError(f"{_PACKAGE} carries no data named {name!r}; it carries {known}.")
    # Found, not imported: importing the package registers environments and loads matplotlib.
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            f"The data source {_PACKAGE}:{name} needs the package {_PACKAGE}, which is not installed. "
            'Install it with: pip install "drl-ray-tracking[demo]"'
        )
    packaged = _PACKAGED[name]
    return Path(spec.submodule_search_locations[0]) / "datasets" / "data" / packaged.file, packaged


def _read(path: Path, source: str) -> pd.DataFrame:
    name = path.name.lower()
    if not name.endswith((".csv", ".csv.gz", ".parquet")):
        raise DataError(f"{source}: not a .csv, .csv.gz or .parquet file, nor {_PACKAGE}:<name>")
    if not path.is_file():
        raise DataError(f"{source}: no such file (looked at {path.absolute()})")
    try:
        return pd.read_parquet(path) if name.endswith(".parquet") else pd.read_csv(path)
    except (
        ValueError,
        OSError,
    ) as error:  # parser, decoding and Arrow errors are all ValueErrors or OSErrors
        raise DataError(f"{source}: cannot be read as a table ({error})") from error


def _missing_labels(timeframe: str | None, periods_per_year: float | None) -> list[str]:
    problems: list[str] = []
    if not timeframe:
        problems.append('timeframe is not given; state it, e.g. "1d"')
    if periods_per_year is None:
        problems.append("periods_per_year is not given; it is never inferred: state it, e.g. 252 for daily stock bars")
    elif not (np.isfinite(periods_per_year) and periods_per_year > 0):
        problems.append(f"periods_per_year is {periods_per_year}, it must be positive and finite")
    return problems


def _timestamps(
    raw: pd.DataFrame, column: str | None, format_: str | None, unit: str | None, problems: list[str]
) -> pd.DatetimeIndex | None:
    """Parses the time column; appends what is wrong with it."""
    given = _time_values(raw, column, problems)
    if given is None:
        return None
    try:
        parsed = _parsed(given, format_, unit, problems)
    except (ValueError, TypeError, OverflowError) as error:
        problems.append(f"timestamps cannot be parsed ({error})")
        return None
    if parsed is None:
        return None
    unknown = np.asarray(parsed.isna())
    if unknown.any():
        expected = (
            f"format {format_!r}" if format_ else f"unit {unit!r}" if unit else "ISO 8601; else give timestamp_format"
        )
        problems.append(f"timestamps: {_offenders(unknown, given)} cannot be parsed (expected {expected})")
    known = parsed[~unknown]
    stamps = known.to_numpy(dtype="datetime64[ns]").astype(np.int64)
    rows = np.flatnonzero(~unknown)
    for text, bad in (
        (
            "come before the row above (the series must be in time order)",
            np.diff(stamps, prepend=stamps[:1]) < 0,
        ),
        ("are duplicates", np.asarray(known.duplicated())),
    ):
        if bad.any():
            mask = np.zeros(len(given), dtype=bool)
            mask[rows[bad]] = True
            problems.append(f"timestamps: {_offenders(mask, given)} {text}")
    return parsed


def _time_values(raw: pd.DataFrame, column: str | None, problems: list[str]) -> pd.Series[Any] | None:
    wanted = _TIMESTAMP_NAMES if column is None else (column.strip().lower(),)
    places = [i for i, name in enumerate(raw.columns) if str(name).strip().lower() in wanted]
    if len(places) == 1:
        return raw.iloc[:, places[0]]
    if len(places) > 1:
        found = ", ".join(repr(str(raw.columns[i])) for i in places)
        problems.append(f"several time columns: {found}; choose one with timestamp_column")
    elif isinstance(raw.index, pd.DatetimeIndex) and column in (None, raw.index.name):
        return pd.Series(raw.index, index=raw.index)
    else:
        problems.append(
            f"no time column named {' or '.join(wanted)} among {_names(raw)}; name it with timestamp_column"
        )
    return None


def _parsed(
    given: pd.Series[Any], format_: str | None, unit: str | None, problems: list[str]
) -> pd.DatetimeIndex | None:
    if pd.api.types.is_numeric_dtype(given) and format_ is None:
        # pandas would read bare numbers as nanoseconds and put every bar into January 1970.
        if unit not in _EPOCH_UNITS:
            problems.append(
                f"timestamps are numbers (first {given.iloc[0] if len(given) else None}) and timestamp_unit "
                f"is {unit!r}; give s, ms, us or ns, or a timestamp_format"
            )
            return None
        stamps = pd.to_datetime(given, unit=_EPOCH_UNITS[unit], utc=True, errors="coerce")
    elif pd.api.types.is_datetime64_any_dtype(given):
        stamps = pd.to_datetime(given, utc=True)
    else:
        text = given.map(lambda value: None if pd.isna(value) else str(value))
        stamps = pd.to_datetime(text, format=format_ or "ISO8601", utc=True, errors="coerce")
    return pd.DatetimeIndex(stamps).tz_localize(None).as_unit("ns")


def _numbers(raw: pd.DataFrame, columns: Sequence[str] | None, problems: list[str]) -> dict[str, NDArray[np.float64]]:
    """Returns the known columns as float64 (n,), in canonical order; appends every bad value."""
    asked = None if columns is None else {*(str(name).lower() for name in columns), "close"}
    if asked is not None and (unknown := sorted(asked - set(COLUMNS))):
        problems.append(f"columns asks for {unknown}; known are {', '.join(COLUMNS)}")
    values: dict[str, NDArray[np.float64]] = {}
    for name in COLUMNS:
        if asked is not None and name not in asked:
            continue
        places = [i for i, given in enumerate(raw.columns) if str(given).strip().lower() == name]
        if not places:
            if name == "close" or asked is not None:
                problems.append(f"no column `{name}` among {_names(raw)}")
            continue
        if len(places) > 1:
            problems.append(f"column `{name}` appears {len(places)} times (case is ignored) among {_names(raw)}")
            continue
        given = raw.iloc[:, places[0]]
        numbers = np.asarray(pd.to_numeric(given, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan))
        values[name] = numbers
        missing = np.isnan(numbers)
        infinite = np.isinf(numbers)
        below = (numbers < 0) if name == "volume" else (numbers <= 0)
        for bad, text in (
            (missing, "are missing or not numbers"),
            (infinite, "are infinite"),
            (below & ~infinite, "are negative" if name == "volume" else "are not positive"),
        ):
            if bad.any():
                problems.append(f"{name}: {_offenders(bad, given)} {text}")
    return values


def _check_candles(values: dict[str, NDArray[np.float64]], problems: list[str]) -> None:
    """Appends bars whose high or low contradicts another price (NaN compares false: reported elsewhere)."""
    for upper, lower in (
        ("high", "low"),
        ("high", "open"),
        ("high", "close"),
        ("open", "low"),
        ("close", "low"),
    ):
        if upper in values and lower in values:
            bad = values[upper] < values[lower]
            if bad.any():
                first = int(np.flatnonzero(bad)[0])
                problems.append(
                    f"{upper} < {lower} in {int(bad.sum())} rows, first at data row {first + 1}: "
                    f"{values[upper][first]:g} < {values[lower][first]:g}"
                )


def _offenders(bad: NDArray[np.bool_], given: pd.Series[Any]) -> str:
    rows = np.flatnonzero(bad)
    shown = ", ".join(f"row {row + 1}: {given.iloc[row]}" for row in rows[:_SHOWN])
    return f"{len(rows)} value(s) [{shown}{', ...' if len(rows) > _SHOWN else ''}]"


def _names(raw: pd.DataFrame) -> list[str]:
    return [str(name) for name in raw.columns]
