"""A finished episode's environment, for what infos do not say: constants such as prices and fees.

With auto-reset the environment may already live in the next episode. What is read here must not depend on
the episode, or must be checked against it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Protocol

from drl_ray_tracking.errors import EpisodeError


class Environment(Protocol):
    """Reads attributes of one environment, wherever it lives."""

    def attribute(self, name: str) -> Any:
        """Returns an attribute of the environment or of one of its wrappers.

        Raises:
            EpisodeError: there is none of that name.
        """
        ...


@dataclass(frozen=True)
class SingleEnvironment:
    """A plain gymnasium environment."""

    env: Any

    def attribute(self, name: str) -> Any:
        """Returns the attribute; see `Environment`."""
        try:
            return self.env.get_wrapper_attr(name)
        except AttributeError:
            raise EpisodeError(f"the environment {self.env} has no attribute {name!r}") from None


@dataclass(frozen=True)
class VectorSlot:
    """One slot of a gymnasium vector environment; an asynchronous one is asked through its pipe."""

    env: Any
    index: int

    def attribute(self, name: str) -> Any:
        """Returns the attribute; see `Environment`."""
        try:
            return self.env.get_attr(name)[self.index]
        except AttributeError:
            raise EpisodeError(f"slot {self.index} of {self.env} has no attribute {name!r}") from None


@dataclass(frozen=True)
class NoEnvironment:
    """An episode whose environment is out of reach."""

    def attribute(self, name: str) -> Any:
        """Raises EpisodeError: there is nothing to ask."""
        raise EpisodeError(f"the attribute {name!r} is needed, but the episode's environment is out of reach")


NOWHERE: Final = NoEnvironment()
