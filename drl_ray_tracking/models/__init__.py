"""From a checkpoint to a policy one can load and play: frozen, packaged, backtested.

The public names are loaded on first use (PEP 562): whoever serves a model needs neither Ray nor pandas.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from drl_ray_tracking.models.frozen import FrozenPolicy as FrozenPolicy
    from drl_ray_tracking.models.loading import load_algorithm as load_algorithm
    from drl_ray_tracking.models.loading import load_policy as load_policy
    from drl_ray_tracking.models.loading import load_rl_module as load_rl_module
    from drl_ray_tracking.models.policy import Player as Player
    from drl_ray_tracking.models.policy import Policy as Policy

_PUBLIC = {
    "FrozenPolicy": "frozen",
    "Player": "policy",
    "Policy": "policy",
    "load_algorithm": "loading",
    "load_policy": "loading",
    "load_rl_module": "loading",
}

__all__ = [
    "FrozenPolicy",
    "Player",
    "Policy",
    "load_algorithm",
    "load_policy",
    "load_rl_module",
]


def __getattr__(name: str) -> Any:
    module = _PUBLIC.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; public are {', '.join(__all__)}")
    value = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
