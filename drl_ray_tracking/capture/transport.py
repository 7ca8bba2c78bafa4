"""How records travel from an env runner to the Algorithm process: as bytes in RLlib's `item_series`.

Bytes, because RLlib keeps what it transports in its checkpoints: a checkpoint must load where this
package is not installed. `item_series`, because it is built in, merges by concatenation and so loses nothing.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, MutableMapping
from typing import Any

from drl_ray_tracking import names


def send(metrics_logger: Any, kind: str, items: list[Any], *, by_value: Callable[[Any], bytes]) -> None:
    """Hands items over to RLlib's metrics logger on an env runner: together, which is cheaper than one by one.

    Args:
        metrics_logger: RLlib's.
        kind: `names.SUMMARIES` or `names.SERIES`.
        items: any values that can be pickled.
        by_value: packs what pickle refuses: a user's metric defined in the script they run, which is
            `__main__` on the driver and another module on an env runner.
    """
    try:
        packed = pickle.dumps(items, protocol=pickle.HIGHEST_PROTOCOL)
    except (pickle.PicklingError, AttributeError, TypeError):
        packed = by_value(items)
    metrics_logger.log_value((names.TRANSPORT, kind), packed, reduce="item_series")


def take(group: MutableMapping[str, Any]) -> dict[str, list[bytes]]:
    """Takes all parcels out of a group of a result, by kind.

    Args:
        group: `result["env_runners"]` or `result["evaluation"]["env_runners"]`; loses its transport key.
    """
    carried = group.pop(names.TRANSPORT, None)
    if not isinstance(carried, MutableMapping):
        return {}
    return {kind: _packed(value) for kind, value in carried.items()}


def unpack(parcels: list[bytes]) -> list[Any]:
    """Returns the items of all parcels."""
    return [item for packed in parcels for item in pickle.loads(packed)]


def _packed(value: Any) -> list[bytes]:
    """RLlib unwraps a list of one item, and shows NaN for an empty one."""
    if isinstance(value, bytes):
        return [value]
    return [item for item in value if isinstance(item, bytes)] if isinstance(value, list) else []
