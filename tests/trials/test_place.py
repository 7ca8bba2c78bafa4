"""Directories through pyarrow: local, on a filesystem of the caller's, and not there at all."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyarrow.fs import LocalFileSystem, S3FileSystem, SubTreeFileSystem

from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.trials.place import Place, storage_uri


def test_a_local_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "text").write_bytes("one\ntwo \xff ü\n".encode("latin-1"))
    monkeypatch.chdir(tmp_path)
    place = Place.at("a")
    assert (place.name, place.uri, place.exists()) == ("a", str(tmp_path / "a"), True)
    assert place.entries() == ("b", "text")
    assert place.text("text") == "one\ntwo \ufffd \ufffd\n", "bytes that are no UTF-8 are replaced"
    assert [line.strip() for line in place.lines("text")] == ["one", "two \ufffd \ufffd"]
    assert (place.text("none"), list(place.lines("none"))) == (None, [])
    assert place.below("b").exists() and not place.below("c").exists()
    assert place.below("c").entries() == ()
    with place.open("text") as file:
        assert file.size() == 12
    with pytest.raises(FileNotFoundError):
        place.open("none")


def test_a_filesystem_of_the_callers(tmp_path: Path) -> None:
    (tmp_path / "bucket" / "exp").mkdir(parents=True)
    place = Place.at("exp", SubTreeFileSystem(str(tmp_path / "bucket"), LocalFileSystem()))
    assert place.exists() and place.entries() == ()


def test_a_uri_that_nothing_opens_is_said() -> None:
    with pytest.raises(ConfigurationError, match="nope://bucket/x cannot be opened"):
        Place.at("nope://bucket/x")


def test_an_address_holds_no_credential() -> None:
    bucket = S3FileSystem(
        endpoint_override="127.0.0.1:9", scheme="http", region="eu", access_key="me", secret_key="s3cret"
    )
    assert storage_uri(bucket, "b/x") == "s3://b/x?endpoint_override=127.0.0.1%3A9&scheme=http&region=eu"
