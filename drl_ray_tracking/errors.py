"""The few error types of this package: what a caller may catch, and nothing else.

A message says what was given, what is allowed and what to do.
"""

from __future__ import annotations


class TrackingError(Exception):
    """Base of every error this package raises on purpose."""


class ConfigurationError(TrackingError):
    """Raises before any work starts, for a setting the user can mend; lists every problem at once."""


class DataError(TrackingError):
    """Raises for market data that cannot be used; lists every violation at once."""


class EpisodeError(TrackingError):
    """Raises for an episode record whose arrays contradict each other."""


class JournalError(TrackingError):
    """Raises for a journal that cannot be opened, read or written."""
