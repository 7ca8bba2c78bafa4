"""System metrics of every node, on the sweep's own run: a thread in the driver, a light actor on other nodes.

Nothing waits for it: Tune's hooks only start and stop the thread. A node that does not answer is left out
until it does; the driver's own machine needs no actor.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from drl_ray_tracking import names
from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.names import legal_metric_name
from drl_ray_tracking.tracking.node_sample import NodeSampler

_log = logging.getLogger(__name__)
DEFAULT_INTERVAL_S: Final = 10.0
LEAST_INTERVAL_S: Final = 1.0
SAMPLES_PER_PACE: Final = 360  # then the interval doubles: an hour gives 360 points, a week some 3,000
NODES_PER_PACE: Final = 20  # with more of them each is asked less often: the points per second stay bounded
_ANSWER_S: Final = 5.0
_JOIN_S: Final = 2.0


def checked_interval(given: bool | float) -> float | None:
    """Returns the seconds between samples, or None for no system metrics.

    Raises:
        ConfigurationError: it is neither a switch nor a number of seconds from 1 on.
    """
    if isinstance(given, bool):
        return DEFAULT_INTERVAL_S if given else None
    if not isinstance(given, (int, float)) or not given >= LEAST_INTERVAL_S:
        raise ConfigurationError(
            f"system_metrics={given!r} must be true, false, or the seconds between samples, "
            f"{LEAST_INTERVAL_S:.0f} or more"
        )
    return float(given)


def paces(interval_s: float) -> Iterator[float]:
    """Yields the pause before each sample: the longer a sweep runs, the rarer they are."""
    while True:
        for _ in range(SAMPLES_PER_PACE):
            yield interval_s
        interval_s *= 2


class SystemMetrics:
    """Samples all nodes of the Ray this process is connected to, until it is stopped."""

    def __init__(self, write: Callable[[int, dict[str, float]], object], interval_s: float) -> None:
        """Takes where samples go: whole seconds since the start, and values by metric name."""
        self._write = write
        self._interval_s = interval_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="drl-track-system", daemon=True)
        self._own = NodeSampler()
        self._actors: dict[str, Any] = {}  # node id -> its actor
        self._asked: dict[str, Any] = {}  # node id -> its answer to come
        self._started = time.monotonic()

    def start(self) -> None:
        """Starts sampling."""
        self._thread.start()

    def stop(self) -> None:
        """Ends sampling soon; the actors end with it."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(_JOIN_S)

    def _run(self) -> None:
        failures = 0
        stretch = 1.0
        for pause in paces(self._interval_s):
            if self._stopping.wait(pause * stretch):
                break
            try:
                stretch = max(1.0, self._sample() / NODES_PER_PACE)
                failures = 0
            except Exception as error:  # noqa: BLE001 - a look at the machine must not hurt what it looks at
                failures += 1
                if failures == 1:
                    _log.warning("system metrics: a sample failed, training goes on: %s", error)
        self._release()

    def _sample(self) -> int:
        """Writes one sample of each node that answers; returns how many nodes there are."""
        import ray

        if not ray.is_initialized():
            return 0
        alive = {str(node["NodeID"]): node for node in ray.nodes() if node["Alive"]}  # type: ignore[no-untyped-call]
        own = str(ray.get_runtime_context().get_node_id())
        answers = self._ask(alive, own)
        answers[own] = self._own.sample()
        labels = node_labels(alive)
        for node, percent in object_store_percent(alive).items():
            if node in answers:
                answers[node]["object_store_percent"] = percent
        values = {
            legal_metric_name(f"{names.SYSTEM}/{labels[node]}/{key}"): value
            for node, sample in answers.items()
            if node in labels
            for key, value in sample.items()
        }
        if not self._stopping.is_set():  # meanwhile the sweep may have ended
            self._write(int(time.monotonic() - self._started), values)
        return len(alive)

    def _ask(self, alive: Mapping[str, Any], own: str) -> dict[str, dict[str, float]]:
        import ray

        for node in set(self._actors) - set(alive):
            self._forget(node)
        for node in alive:
            if node == own:
                continue
            if node not in self._actors:
                self._actors[node] = _actor_on(node)
            if node not in self._asked:  # a node that is slow is not asked again before it has answered
                self._asked[node] = self._actors[node].sample.remote()
        ready, _ = (
            ray.wait(list(self._asked.values()), num_returns=len(self._asked), timeout=_ANSWER_S)
            if self._asked
            else ([], [])
        )
        answers = {}
        for node in [node for node, asked in self._asked.items() if asked in ready]:
            try:
                answers[node] = dict(ray.get(self._asked.pop(node)))
            except ray.exceptions.RayError as error:
                _log.info("node %s gives no system metrics: %s", node, error)
                self._forget(node)
        return answers

    def _forget(self, node: str) -> None:
        self._actors.pop(node, None)
        self._asked.pop(node, None)

    def _release(self) -> None:
        import ray

        for actor in self._actors.values():
            if ray.is_initialized():
                ray.kill(actor)
        self._actors.clear()


def _actor_on(node: str) -> Any:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(NodeSampler).options(num_cpus=0, scheduling_strategy=here).remote()


def node_labels(alive: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Returns a readable name for each node: its host's, with part of its id where a host has several nodes."""
    hosts = {node: str(info["NodeManagerHostname"]) for node, info in alive.items()}
    several = Counter(hosts.values())
    return {node: host if several[host] == 1 else f"{host}-{node[:6]}" for node, host in hosts.items()}


def object_store_percent(alive: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Returns how full each node's object store is, where Ray tells."""
    try:
        from ray._private.state import available_resources_per_node  # the only place that tells it per node
    except ImportError:
        return {}

    kind = "object_store_memory"
    free = available_resources_per_node()  # type: ignore[no-untyped-call]
    return {
        node: 100.0 * (1.0 - float(free[node].get(kind, 0.0)) / float(info["Resources"][kind]))
        for node, info in alive.items()
        if node in free and info.get("Resources", {}).get(kind)
    }
