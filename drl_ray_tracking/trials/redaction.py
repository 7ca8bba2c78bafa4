"""Removes secrets from what is written down: by the name of a key, by the value of a credential, by its place.

Places are the password of a URL and a quoted text assigned to a name like a credential's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

REDACTED: Final = "<redacted>"
_WORDS: Final = r"password|passwd|pwd|secret|token|credentials?|api_?key|access_?key|private_?key|auth"
_SECRET_KEY: Final = re.compile(
    rf"(?i)(^|[_\-./])({_WORDS})($|[_\-./])|(password|passwd|secret)$|((api|access|secret|private)key|[a-z]Token)$"
)
_IN_URL: Final = re.compile(r"(\w://[^\s:/@'\"]*:)[^\s/@'\"]+(?=@)")  # scheme://user:THIS@host
# `api_key = "THIS"` and `"password": "THIS"`, as in a diff or a traceback.
_ASSIGNED: Final = re.compile(
    rf"(?i)(\b(?:\w*[_\-.])?(?:{_WORDS})['\"]?\s*[:=]\s*)(?P<quote>['\"])(?:(?!(?P=quote)).)+(?P=quote)"
)
_SHORTEST_SECRET: Final = 8


@lru_cache(maxsize=8192)  # the same hundreds of keys with every trial
def looks_secret(name: str) -> bool:
    """Tells whether a key or an environment variable is named like a credential."""
    return bool(_SECRET_KEY.search(name))


def known_secrets(environment: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Returns the values of environment variables that look like credentials, longest first."""
    variables = os.environ if environment is None else environment
    # A switch or a path (SSH_AUTH_SOCK, GOOGLE_APPLICATION_CREDENTIALS) is no secret, and is part of many texts; a
    # secret of random letters may begin like one.
    values = {
        value
        for name, value in variables.items()
        if looks_secret(name) and len(value) >= _SHORTEST_SECRET and not _is_there(value)
    }
    return tuple(sorted(values, key=len, reverse=True))


def _is_there(value: str) -> bool:
    try:
        return value.startswith("/") and Path(value).exists()
    except (OSError, ValueError):  # too long for a path
        return False


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
        value = _IN_URL.sub(rf"\g<1>{REDACTED}", value)
        return _ASSIGNED.sub(rf"\g<1>\g<quote>{REDACTED}\g<quote>", value)
    return value


def _harmless(value: Any) -> bool:
    """Numbers, booleans and nothing at all are no credentials: `max_token: 5` stays readable."""
    return value is None or isinstance(value, (bool, int, float))
