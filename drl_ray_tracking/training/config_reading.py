"""What a YAML file means before it is validated, and how pydantic's objections are told."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from drl_ray_tracking.names import suggestion

_EXPONENT: Final = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")


def several_markets(given: Any) -> Any:
    """Takes a list of markets apart: most files have one, and most code cares for one."""
    data = given.get("data") if isinstance(given, Mapping) else None
    if not isinstance(data, list) or not data:
        return given
    return {**given, "data": data[0], "more_data": [*data[1:], *given.get("more_data", [])]}


def numbers(value: Any) -> Any:
    """YAML 1.1 reads `1e-4` as text (it wants `1.0e-4`); everyone means the number."""
    if isinstance(value, Mapping):
        return {key: numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [numbers(item) for item in value]
    if isinstance(value, str) and _EXPONENT.fullmatch(value):
        return float(value)
    return value


def problem_at(item: Any, keys_at: Callable[[list[Any]], list[str]]) -> tuple[str, str]:
    """Returns the path into the file and what is wrong there; `keys_at` says which keys are allowed at a place."""
    location = [part for part in item["loc"] if not _is_kind(part)]
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")
    if item["type"] == "extra_forbidden":
        allowed = keys_at(location[:-1])
        hint = suggestion(str(location[-1]), allowed) or f"; allowed: {', '.join(allowed)}"
        return path, f"unknown key{hint}"
    if item["type"] == "missing":
        return path, "is needed and missing"
    given = item["input"]
    shown = "" if isinstance(given, Mapping) else f" (given {given!r})"
    return path or "the file", item["msg"].removeprefix("Value error, ") + shown


def _is_kind(part: Any) -> bool:
    """Tells whether a part of pydantic's path is no key, but one of several kinds that a value may have."""
    return isinstance(part, str) and (part == "int" or part.startswith(("tuple[", "float", "literal[", "constrained-")))
