"""Fetches a trial's files out of Tune's persisted storage, local or remote, for the courier to upload."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from drl_ray_tracking import names


def storage_uri(filesystem: Any, path: str) -> str:
    """Returns where a path of a pyarrow filesystem is, as a plain path or a URI pyarrow can open again."""
    kind = getattr(filesystem, "type_name", "local")
    return path if kind in ("local", "subtree") or (path.startswith("/") and kind == "py") else f"{kind}://{path}"


def fetch_folder(artifact_folder: str, source: str, scratch: Path) -> Path | None:
    """Returns a local folder with what is to be uploaded, or None where there is nothing.

    The evaluation series of a trial, one file per evaluation, become one file.
    """
    local = Path(source)
    if "://" in source:
        local = scratch / "fetched"
        try:
            _download(source, local)
        except FileNotFoundError:  # a trial without evaluations has no series
            return None
    if not local.is_dir():
        return None
    if artifact_folder != names.SERIES_ARTIFACT:
        return local
    merged = scratch / "merged"
    merged.mkdir()
    return merged if merge_series(local, merged / "evaluations.parquet") else None


def merge_series(folder: Path, target: Path) -> bool:
    """Concatenates a trial's evaluation files into one Parquet file; False where there are none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = [pq.read_table(path) for path in sorted(folder.glob("*.parquet"))]
    if not tables:
        return False
    pq.write_table(pa.concat_tables(tables, promote_options="permissive"), target)
    return True


def _download(source: str, target: Path) -> None:
    from pyarrow.fs import FileSystem, copy_files

    filesystem, path = FileSystem.from_uri(source)
    target.mkdir(parents=True, exist_ok=True)
    copy_files(path, str(target), source_filesystem=filesystem)
