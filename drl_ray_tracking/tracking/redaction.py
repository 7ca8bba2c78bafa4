"""Removes secrets from what is written down: by the name of a key, and by the value of a credential."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

REDACTED: Final = "<redacted>"
_SECRET_KEY: Final = re.compile(
    r"(?i)(^|[_\-./])(password|passwd|pwd|secret|token|credentials?|api_?key|access_?key|private_?key|auth)($|[_\-./])"
    r"|(?i:(api|access|secret|private)key$)"
)
_SHORTEST_SECRET: Final = 8


def looks_secret(name: str) -> bool:
    """Tells whether a key or an environment variable is named like a credential."""
    return bool(_SECRET_KEY.search(name))


def known_secrets(environment: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Returns the values of environment variables that look like credentials, longest first."""
    variables = os.environ if environment is None else environment
    values = {value for name, value in variables.items() if looks_secret(name) and len(value) >= _SHORTEST_SECRET}
    return tuple(sorted(values, key=len, reverse=True))


def redact(value: Any, secrets: Iterable[str]) -> Any:
    """Returns plain JSON with secrets replaced by `<redacted>`; keys keep their names."""
    if isinstance(value, Mapping):
        return {
            key: REDACTED if looks_secret(str(key)) and not _harmless(item) else redact(item, secrets)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [redact(item, secrets) for item in value]
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, REDACTED)
    return value


def _harmless(value: Any) -> bool:
    """Numbers, booleans and nothing at all are no credentials: `max_token: 5` stays readable."""
    return value is None or isinstance(value, (bool, int, float))
