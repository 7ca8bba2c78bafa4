"""Names a reader can tell groups of runs apart by: the parameters in which they differ."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Final

import pandas as pd

PARAM: Final = "param."
_SHOWN: Final = 4
_SHOWN_CHARACTERS: Final = 40
# Seeds replicate a configuration; they do not name one.
_NEVER: Final = frozenset({"seed"})


def group_labels(runs: pd.DataFrame, groups: pd.Series[str], by: str) -> dict[Hashable, str]:
    """Returns a distinct label for each group.

    Args:
        runs: index `run_id`; parameters in the columns `param.<name>`.
        groups: the group of each run, same index.
        by: the column that was grouped by. Groups of a parameter or tag are `name=value`; those of a
            configuration hash name the parameters in which they differ and the hash's first digits.
    """
    keys = [str(key) for key in groups.unique()]
    if by != "config_hash":
        name = by.removeprefix(PARAM).removeprefix("tag.")
        return {key: f"{name}={text}" for key, text in _distinct_cuts(keys).items()}
    prefixes = _distinct_prefixes(keys)
    differing = differing_parameters(runs, groups)
    names = _short_names(list(differing))
    labels: dict[Hashable, str] = {}
    for key in keys:
        parts = [f"{names[column]}={cut(values[key])}" for column, values in differing.items() if key in values]
        more = f" +{len(parts) - _SHOWN} more" if len(parts) > _SHOWN else ""
        text = " ".join(parts[:_SHOWN]) + more
        labels[key] = f"{text} ({prefixes[key]})" if text else prefixes[key]
    return labels


def filled(column: pd.Series[Any]) -> pd.Series[Any]:
    """Returns a parameter's column with `unset` for the runs that have none."""
    return column.astype("object").where(column.notna(), "unset")


def cut(text: str, longest: int = _SHOWN_CHARACTERS) -> str:
    """Returns a text of at most `longest` characters, its cut marked by an ellipsis."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def differing_parameters(runs: pd.DataFrame, groups: pd.Series[str]) -> dict[str, Mapping[str, str]]:
    """Returns, for each parameter constant within groups but not across them, its value in each group.

    Args:
        runs: index `run_id`; parameters in the columns `param.<name>`.
        groups: the group of each run, same index.

    Returns:
        Column -> group -> value, `unset` where a run has none; the seed is left out.
    """
    found: dict[str, Mapping[str, str]] = {}
    for column in (str(column) for column in runs.columns):
        if not column.startswith(PARAM) or column.rpartition("/")[2].removeprefix(PARAM) in _NEVER:
            continue
        by_group = filled(runs[column]).groupby(groups)
        if by_group.nunique().max() == 1:
            values = by_group.first()
            if values.nunique() > 1:
                found[column] = {str(key): str(value) for key, value in values.items()}
    return found


def _short_names(columns: Sequence[str]) -> dict[str, str]:
    """Returns the last part of each slash-joined parameter name, or all of it where two would be the same."""
    full = {column: column.removeprefix(PARAM) for column in columns}
    last = {column: name.rpartition("/")[2] for column, name in full.items()}
    taken = list(last.values())
    return {column: last[column] if taken.count(last[column]) == 1 else full[column] for column in columns}


def _distinct_cuts(keys: Sequence[str]) -> dict[str, str]:
    """Returns each key cut short, so that no two look alike: by its beginning, by both its ends, or numbered."""
    for short in (cut, _both_ends):
        texts = {key: short(key) for key in keys}
        if len(set(texts.values())) == len(keys):
            return texts
    return {key: f"{cut(key)} ({number})" for number, key in enumerate(keys, start=1)}


def _both_ends(text: str) -> str:
    half = (_SHOWN_CHARACTERS - 1) // 2
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:half]}…{text[-half:]}"


def _distinct_prefixes(keys: Sequence[str]) -> dict[str, str]:
    for digits in range(6, max((len(key) for key in keys), default=0) + 1):
        if len({key[:digits] for key in keys}) == len(keys):
            return {key: key[:digits] for key in keys}
    return {key: key for key in keys}
