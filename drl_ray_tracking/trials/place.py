"""A directory, local or remote, through the pyarrow filesystem it lies on."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

from drl_ray_tracking.errors import ConfigurationError

LEGIBLE: Final = "/=,:@+~"  # in Tune's own folder names, and no trouble in a URI


def storage_uri(filesystem: Any, path: str) -> str:
    """Returns where a path of a pyarrow filesystem is, as a plain path or a URI pyarrow can open again."""
    kind = getattr(filesystem, "type_name", "local")
    if kind in ("local", "subtree") or (path.startswith("/") and kind == "py"):
        return path
    return f"{kind}://{quote(path, safe=LEGIBLE)}{_s3_options(filesystem) if kind == 's3' else ''}"


def _s3_options(filesystem: Any) -> str:
    """Returns how an S3-compatible server is reached, as a query pyarrow understands; never a credential."""
    settings = filesystem.__reduce__()[1][0]  # what pyarrow itself rebuilds the filesystem from
    endpoint = settings.get("endpoint_override")
    if not endpoint:
        return ""
    known = {key: settings[key] for key in ("endpoint_override", "scheme", "region") if settings.get(key)}
    return f"?{urlencode(known)}"


@dataclass(frozen=True)
class Place:
    """A directory: `path` on `filesystem`, as pyarrow writes both."""

    filesystem: Any
    path: str

    @classmethod
    def at(cls, given: str | Path, filesystem: Any = None) -> Place:
        """Returns the place of a local path or of a URI that pyarrow opens, such as `s3://bucket/results/NAME`.

        Args:
            given: the path; relative ones and `~` are taken as a shell would.
            filesystem: the pyarrow filesystem that `given` is a path of; None finds out.

        Raises:
            ConfigurationError: pyarrow knows no such filesystem.
        """
        from pyarrow import ArrowException
        from pyarrow.fs import FileSystem, LocalFileSystem

        if filesystem is not None:
            return cls(filesystem, str(given))
        if "://" not in str(given):
            return cls(LocalFileSystem(), str(Path(given).expanduser().resolve()))
        try:
            return cls(*FileSystem.from_uri(str(given)))
        except (ArrowException, OSError, ValueError) as error:
            raise ConfigurationError(f"{given} cannot be opened: {error}") from error

    @property
    def name(self) -> str:
        """The directory's own name."""
        return self.path.rstrip("/").rpartition("/")[2]

    @property
    def uri(self) -> str:
        """A plain path, or a URI that pyarrow can open again; never a credential."""
        return storage_uri(self.filesystem, self.path)

    def __str__(self) -> str:
        return self.uri

    def below(self, name: str) -> Place:
        """Returns the directory of that name in this one, whether or not it exists."""
        return Place(self.filesystem, f"{self.path.rstrip('/')}/{name}")

    def exists(self) -> bool:
        """Tells whether there is such a directory."""
        from pyarrow.fs import FileType

        return bool(self.filesystem.get_file_info(self.path).type == FileType.Directory)

    def entries(self) -> tuple[str, ...]:
        """Returns the names of what is in the directory, sorted; none where there is no such directory."""
        from pyarrow.fs import FileSelector

        found = self.filesystem.get_file_info(FileSelector(self.path, allow_not_found=True))
        return tuple(sorted(info.base_name for info in found))

    def text(self, name: str) -> str | None:
        """Returns the content of a file, or None where there is none; bytes that are no UTF-8 are replaced."""
        try:
            with self.filesystem.open_input_stream(f"{self.path.rstrip('/')}/{name}") as stream:
                return str(stream.read().decode("utf-8", "replace"))
        except FileNotFoundError:
            return None

    def keep(self, name: str, text: str) -> None:
        """Writes a file, and makes the directory where there is none; nobody ever sees half of it."""
        self.filesystem.create_dir(self.path, recursive=True)
        path = f"{self.path.rstrip('/')}/{name}"
        with self.filesystem.open_output_stream(f"{path}.new") as stream:
            stream.write(text.encode())
        self.filesystem.move(f"{path}.new", path)

    def lines(self, name: str) -> Iterator[str]:
        """Yields the lines of a file; none where there is no such file."""
        try:
            stream = self.filesystem.open_input_stream(f"{self.path.rstrip('/')}/{name}", buffer_size=1 << 20)
        except FileNotFoundError:
            return
        with stream, io.TextIOWrapper(stream, encoding="utf-8", errors="replace") as text:
            yield from text

    def open(self, name: str) -> Any:
        """Opens a file for random access, as pyarrow's readers take it.

        Raises:
            FileNotFoundError: there is no such file.
        """
        return self.filesystem.open_input_file(f"{self.path.rstrip('/')}/{name}")
