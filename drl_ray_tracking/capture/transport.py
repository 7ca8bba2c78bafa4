"""How records travel from an env runner to the Algorithm process: as bytes in RLlib's `item_series`.

Bytes, because RLlib keeps what it transports in its checkpoints: a checkpoint must load where this
package is not installed. `item_series`, because it is built in, merges by concatenation and so loses nothing.
"""

from __future__ import annotations

import pickle
from collections.abc import MutableMapping
from typing import Any, TypeVar

from drl_ray_tracking import names

_Item = TypeVar("_Item")


def send(metrics_logger: Any, kind: str, item: Any) -> None:
    """Hands one item over to RLlib's metrics logger on an env runner."""
    packed = pickle.dumps(item, protocol=pickle.HIGHEST_PROTOCOL)
    metrics_logger.log_value((names.TRANSPORT, kind), packed, reduce="item_series")


def receive(group: MutableMapping[str, Any]) -> dict[str, list[Any]]:
    """Takes all items out of a group of a result and unpacks them by kind.

    Args:
        group: `result["env_runners"]` or `result["evaluation"]["env_runners"]`; loses its transport key.
    """
    carried = group.pop(names.TRANSPORT, None)
    if not isinstance(carried, MutableMapping):
        return {}
    return {kind: [pickle.loads(packed) for packed in _packed(value)] for kind, value in carried.items()}


def _packed(value: Any) -> list[bytes]:
    """RLlib unwraps a list of one item, and shows NaN for an empty one."""
    if isinstance(value, bytes):
        return [value]
    return [item for item in value if isinstance(item, bytes)] if isinstance(value, list) else []
