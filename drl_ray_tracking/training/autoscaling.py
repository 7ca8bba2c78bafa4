"""What a cluster may grow to: an autoscaler's nodes count before they are up.

A cluster of Ray's launcher leaves its declaration on the head. KubeRay's is the operator's alone: how far it grows is
not known there, only that it does.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

_LAUNCHERS: Final = Path("~/ray_bootstrap_config.yaml")
_KUBERAY: Final = "KUBERAY_GEN_RAY_START_CMD"  # of the head's pod
_SCALED_BY_KUBERAY: Final = "--no-monitor"  # how it starts a head whose autoscaler runs beside it


@dataclass(frozen=True)
class Cores:
    """CPUs of a cluster.

    Attributes:
        present: of the nodes that are up.
        one_node: of the largest node that is declared; 0 where nothing is.
        at_most: of all nodes there may be; infinite where that is not known.
    """

    present: float
    one_node: float
    at_most: float

    @property
    def to_share(self) -> float:
        """What trials share where nothing says how many they want: what is there, and one node that comes when asked.

        Sharing all that may come would have every sweep grow its cluster to the limit.
        """
        return max(self.present, self.one_node)


def cores_of(present: float, launchers: Path | None = None) -> Cores:
    """Returns how many CPUs a cluster has and may have.

    Args:
        present: of the nodes that are up.
        launchers: where the declaration of Ray's launcher is; None is where it puts it.
    """
    declared = _declared((launchers or _LAUNCHERS).expanduser())
    if declared is not None:
        one_node, all_nodes = declared
        return Cores(present, one_node, max(present, all_nodes))
    if _SCALED_BY_KUBERAY in os.environ.get(_KUBERAY, "").split():
        return Cores(present, 0.0, math.inf)
    return Cores(present, 0.0, present)


def _declared(file: Path) -> tuple[float, float] | None:
    """Returns the CPUs of the largest declared worker and of all nodes; None where there is no declaration."""
    try:
        given = yaml.safe_load(file.read_text(encoding="utf-8"))
        types: Mapping[str, Any] = given["available_node_types"]
        limit = int(given.get("max_workers", 2))  # Ray's own default
        sizes = {name: float((one.get("resources") or {}).get("CPU", 0)) for name, one in types.items()}
        counts = {name: min(limit, int(one.get("max_workers", limit))) for name, one in types.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError):
        return None
    head = str(given.get("head_node_type", ""))
    workers = sorted((sizes[name] for name in types for _ in range(counts[name]) if name != head), reverse=True)
    return max(workers, default=0.0), sizes.get(head, 0.0) + sum(workers[:limit])
