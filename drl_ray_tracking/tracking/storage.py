"""Addresses in Tune's persisted storage, local or remote, and how files are brought from there."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any
from urllib.parse import quote

from drl_ray_tracking.trials.place import LEGIBLE


def below(address: str, name: str) -> str:
    """Returns the address of something in a folder; an address may end with a query, see `trials.place.storage_uri`."""
    path, mark, query = address.partition("?") if "://" in address else (address, "", "")
    return f"{path.rstrip('/')}/{quote(name, safe=LEGIBLE) if '://' in address else name}{mark}{query}"


def download(source: str, target: Path, *, starting: str = "", at_most: float = math.inf) -> list[int]:
    """Copies files of a folder, a local one or one that pyarrow can open, and returns their sizes.

    Args:
        source: the folder.
        target: made where it does not exist.
        starting: copies only files in the folder itself whose names start so; '' copies everything in and below it.
        at_most: bytes; where they are more, nothing is copied.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    from pyarrow.fs import FileSelector, copy_files

    filesystem, path = _opened(source)
    if not starting:
        target.mkdir(parents=True, exist_ok=True)
        copy_files(path, str(target), source_filesystem=filesystem)
        return []
    found = [one for one in filesystem.get_file_info(FileSelector(path)) if one.base_name.startswith(starting)]
    sizes = [int(one.size) for one in found if one.is_file]
    if sum(sizes) <= at_most:
        target.mkdir(parents=True, exist_ok=True)
        for one in found:
            if one.is_file:
                copy_files(one.path, str(target / one.base_name), source_filesystem=filesystem)
    return sizes


Stamp = tuple[int, int]  # size, and when it was last written (Unix ns; 0 where the storage does not say)


def list_files(source: str) -> dict[str, Stamp]:
    """Returns the files in and below a folder by their path in it; none where there is no such folder."""
    from pyarrow.fs import FileSelector

    filesystem, path = _opened(source)
    found = filesystem.get_file_info(FileSelector(path, recursive=True, allow_not_found=True))
    top = path.rstrip("/") + "/"
    return {
        one.path.removeprefix(top): (int(one.size), int(one.mtime_ns or 0))
        for one in found
        if one.is_file and one.path.startswith(top)
    }


def copy_file(source: str, path: str, target: Path) -> None:
    """Copies one file out of a folder, see `list_files`."""
    from pyarrow.fs import copy_files

    filesystem, folder = _opened(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    copy_files(f"{folder.rstrip('/')}/{path}", str(target), source_filesystem=filesystem)


def _opened(address: str) -> tuple[Any, str]:
    from pyarrow.fs import FileSystem, LocalFileSystem

    return FileSystem.from_uri(address) if "://" in address else (LocalFileSystem(), address)
