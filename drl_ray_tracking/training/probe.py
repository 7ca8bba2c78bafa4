"""Asks, before anything trains, whether all nodes of a cluster see the same storage.

Where they do not, checkpoints and evaluation bars of trials on other nodes never reach the driver, and a trial
whose node dies cannot go on elsewhere: better said in seconds than found out after hours.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from drl_ray_tracking.errors import ConfigurationError

_log = logging.getLogger(__name__)
_TIMEOUT_S: Final = 60.0
_LISTED: Final = 5


def check_shared_storage(storage: str | None, *, timeout_s: float = _TIMEOUT_S) -> None:
    """Has every node read the driver's file in the storage and leave one of its own; both are removed again.

    With one node there is nothing to share and nothing is done. A node that does not answer in time is said,
    not refused: it may be busy starting.

    Args:
        storage: Tune's storage path: a directory, or a URI pyarrow can open; None is Tune's default.
        timeout_s: how long the nodes may take, all together.

    Raises:
        ConfigurationError: the driver cannot write there, or a node sees another storage; names the nodes.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = {str(node["NodeID"]): _title(node) for node in ray.nodes() if node["Alive"]}  # type: ignore[no-untyped-call]
    if len(nodes) < 2:
        return
    place = storage or _default_storage()
    token = uuid.uuid4().hex
    folder = f"{place.rstrip('/')}/.drl_probe_{token}"
    try:
        leave(folder, "driver", token)
    except Exception as error:
        raise ConfigurationError(f"the storage {place} cannot be written by the driver: {error}") from error
    try:
        remote = ray.remote(num_cpus=0, max_retries=0)(visit)
        tasks = {
            remote.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(
                folder, node, token
            ): node
            for node in nodes
        }
        answered, late = ray.wait(list(tasks), num_returns=len(tasks), timeout=timeout_s)
        problems = {tasks[task]: said for task in answered if (said := _answer(task))}
        problems.update(
            {
                tasks[task]: "its file does not reach the driver"
                for task in answered
                if tasks[task] not in problems and not _holds(folder, tasks[task], token)
            }
        )
        for task in late:
            ray.cancel(task, force=True)
            _log.warning("node %s has not answered whether it sees the storage %s", nodes[tasks[task]], place)
    finally:
        remove(folder)
    if problems:
        raise ConfigurationError(_refusal(place, problems, nodes, local="://" not in place))


def visit(folder: str, node: str, token: str) -> str:
    """Runs on a node: reads the driver's file and leaves the node's own; returns what is wrong, or nothing."""
    try:
        if not _holds(folder, "driver", token):
            return "it does not see the driver's file"
        leave(folder, node, token)
    except Exception as error:  # noqa: BLE001 - whatever a filesystem raises is the answer
        return f"{type(error).__name__}: {error}"
    return ""


def leave(folder: str, name: str, token: str) -> None:
    """Writes a file with the token."""
    filesystem, path = _open(folder)
    filesystem.create_dir(path, recursive=True)
    with filesystem.open_output_stream(f"{path}/{name}") as stream:
        stream.write(token.encode())


def remove(folder: str) -> None:
    """Removes the probe's folder; what cannot be removed is not worth an error."""
    try:
        filesystem, path = _open(folder)
        filesystem.delete_dir(path)
    except Exception as error:  # noqa: BLE001 - whatever a filesystem raises
        _log.warning("the probe's folder %s stays: %s", folder, error)


def _holds(folder: str, name: str, token: str) -> bool:
    filesystem, path = _open(folder)
    deadline = time.monotonic() + 2.0  # a network filesystem may show another node's file a little later
    while True:
        try:
            with filesystem.open_input_stream(f"{path}/{name}") as stream:
                return bool(stream.read() == token.encode())
        except FileNotFoundError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.1)


def _open(folder: str) -> tuple[Any, str]:
    from pyarrow.fs import FileSystem

    if "://" in folder:
        filesystem, path = FileSystem.from_uri(folder)
        return filesystem, str(path)
    filesystem, path = FileSystem.from_uri(f"file://{Path(folder).expanduser().absolute()}")
    return filesystem, str(path)


def _answer(task: Any) -> str:
    import ray

    try:
        return str(ray.get(task))
    except ray.exceptions.RayError as error:  # the node died, or cannot import this package
        return f"{type(error).__name__}: {str(error).strip().splitlines()[-1][:200]}"


def _default_storage() -> str:
    from ray.tune import RunConfig

    return str(RunConfig().storage_path)


def _title(node: Mapping[str, Any]) -> str:
    return f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']}, {str(node['NodeID'])[:8]})"


def _refusal(place: str, problems: Mapping[str, str], nodes: Mapping[str, str], *, local: bool) -> str:
    lines = [f"\n  {nodes[node]}: {said}" for node, said in list(problems.items())[:_LISTED]]
    more = f"\n  and {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
    remedy = (
        "Set `storage:` to a directory that all nodes share (NFS, a cluster filesystem) or to an object store "
        "(s3://bucket/folder)."
        if local
        else "Give every node the credentials and packages this storage needs."
    )
    return f"{len(problems)} of {len(nodes)} nodes do not share the storage {place}:{''.join(lines)}{more}\n{remedy}"
