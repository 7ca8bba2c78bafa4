"""A trial's files on their way out of Tune's storage: what is fetched of them, and what becomes of it.

The evaluation bars of a trial, one file an evaluation, become one file beside its best and worst episode. All of it
goes evaluation by evaluation: a long trial's bars never are in memory at once.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from drl_ray_tracking import names
from drl_ray_tracking.errors import TrackingError
from drl_ray_tracking.tracking.storage import download

if TYPE_CHECKING:
    import pyarrow as pa

_log = logging.getLogger(__name__)
MAX_TENSORBOARD_BYTES: Final = 100_000_000
_EVENT_FILES: Final = "events.out.tfevents."
_ROWS_AT_ONCE: Final = 50_000


class LeftOutError(TrackingError):
    """Raises when files are not uploaded on purpose: the message says why."""


def fetch_folder(artifact_folder: str, source: str, scratch: Path) -> Path | None:
    """Returns a local folder with what is to be uploaded, or None where there is nothing.

    Args:
        artifact_folder: where it goes: some kinds of files are made into others on the way.
        source: a path, or an address that pyarrow opens.
        scratch: an empty folder for what has to be brought here.

    Raises:
        LeftOutError: there is too much of it.
    """
    if artifact_folder == names.TENSORBOARD_ARTIFACT:
        return _event_files(source, scratch)
    local = Path(source)
    if "://" in source:
        local = scratch / "fetched"
        try:
            download(source, local)
        except FileNotFoundError:  # a trial without evaluations has no series
            return None
    if not local.is_dir():
        return None
    if artifact_folder != names.SERIES_ARTIFACT:
        return local
    merged = scratch / "merged"
    merged.mkdir()
    if not merge_series(local, merged / names.SERIES_FILE):
        return None
    try:
        cut_extremes(merged / names.SERIES_FILE, merged)
    except Exception:  # noqa: BLE001 - the series counts; columns of another tracker's may lack anything
        _log.exception("the best and the worst episode of %s cannot be told", source)
    return merged


def _event_files(source: str, scratch: Path) -> Path | None:
    """Brings TensorBoard's event files of one directory, not those below it."""
    target = scratch / "events"
    try:
        sizes = download(source, target, starting=_EVENT_FILES, at_most=MAX_TENSORBOARD_BYTES)
    except FileNotFoundError:
        return None
    if sum(sizes) > MAX_TENSORBOARD_BYTES:
        raise LeftOutError(
            f"{len(sizes)} TensorBoard event files of {sum(sizes) / 1e6:.0f} MB in {source}: more than "
            f"{MAX_TENSORBOARD_BYTES / 1e6:.0f} MB are not uploaded"
        )
    return target if sizes else None


def merge_series(folder: Path, target: Path) -> bool:
    """Writes a trial's evaluation files as one Parquet file; False where there are none.

    A file that cannot be read, as of a process killed while it wrote, is left out and said.
    """
    import pyarrow.parquet as pq

    readable = []
    for path in sorted(folder.glob("*.parquet")):
        try:
            readable.append((path, pq.read_schema(path)))
        except (OSError, ValueError) as error:
            _log.warning("%s is left out of the series: %s", path, error)
    if not readable:
        return False
    schema = _common_schema([schema for _, schema in readable])
    with pq.ParquetWriter(target, schema, compression="zstd") as writer:
        for table in _batches(_fitted(pq.read_table(path), schema) for path, _ in readable):
            writer.write_table(table)
    return True


def _common_schema(schemas: list[pa.Schema]) -> pa.Schema:
    """Returns all columns of all files; one that is numbers here and text there is text."""
    import pyarrow as pa

    kinds: dict[str, set[Any]] = {}
    for schema in schemas:
        for field in schema:
            kinds.setdefault(field.name, set()).add(field.type)
    return pa.schema([(name, next(iter(found)) if len(found) == 1 else pa.string()) for name, found in kinds.items()])


def _fitted(table: pa.Table, schema: pa.Schema) -> pa.Table:
    import pyarrow as pa

    columns = [
        table.column(field.name).cast(field.type)
        if field.name in table.column_names
        else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _batches(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Yields tables together until they are worth a row group; an evaluation is never cut."""
    import pyarrow as pa

    held: list[pa.Table] = []
    for table in tables:
        held.append(table)
        if sum(one.num_rows for one in held) >= _ROWS_AT_ONCE:
            yield pa.concat_tables(held)
            held = []
    if held:
        yield pa.concat_tables(held)


def cut_extremes(merged: Path, folder: Path) -> None:
    """Writes the evaluation episodes with the highest and the lowest total return; of equal ones the earlier.

    An episode whose equity fell to zero or below has lost everything.
    """
    import pyarrow.parquet as pq

    file = pq.ParquetFile(merged)
    returns: dict[tuple[int, int], float] = {}
    for group in range(file.num_row_groups):
        returns.update(_total_returns(file.read_row_group(group, columns=["iteration", "episode", "equity"])))
    if not returns:
        return
    earliest_first = sorted(returns)
    for name, choose in ((names.BEST_EPISODE_FILE, max), (names.WORST_EPISODE_FILE, min)):
        iteration, episode = choose(earliest_first, key=lambda key: returns[key])
        chosen = pq.read_table(merged, filters=[("iteration", "=", iteration), ("episode", "=", episode)])
        pq.write_table(chosen, folder / name, compression="zstd")


def _total_returns(table: pa.Table) -> dict[tuple[int, int], float]:
    """Returns the total return of each (iteration, episode) whose equity is known."""
    import pyarrow as pa
    import pyarrow.compute as pc

    equity = table.column("equity")
    known = pc.if_else(pc.is_nan(equity), pa.scalar(None, equity.type), equity)
    table = table.set_column(table.column_names.index("equity"), "equity", known)
    ends = [("equity", "first"), ("equity", "last"), ("equity", "min")]
    found = table.group_by(["iteration", "episode"], use_threads=False).aggregate(ends).to_pydict()
    rows = zip(*(found[name] for name in ("iteration", "episode", *(f"equity_{end}" for _, end in ends))), strict=True)
    return {
        (iteration, episode): -1.0 if low <= 0.0 else last / first - 1.0
        for iteration, episode, first, last, low in rows
        if first is not None and first > 0.0
    }


def legal_tree(folder: Path, scratch: Path) -> Path:
    """Returns the folder, or a copy of it in which every name is one that an artifact can have.

    Args:
        folder: what is to be uploaded.
        scratch: where the copy goes; not below `folder`.
    """
    files = [path for path in folder.rglob("*") if path.is_file()]
    named = {path: names.legal_artifact_path(path.relative_to(folder).as_posix()) for path in files}
    if all(path.relative_to(folder).as_posix() == legal for path, legal in named.items()):
        return folder
    copied = scratch / "legal"
    for path, legal in named.items():
        (copied / legal).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copied / legal)
    return copied
