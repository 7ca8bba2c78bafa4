"""Code of the user's by `module:Name`: what is found, and what is said of what is not."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray import cloudpickle

from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.training.named import is_named, look_in, named


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "my_named_code.py").write_text("class MyEnv:\n    pass\n\ndef bars():\n    return None\n")
    (tmp_path / "my_broken_code.py").write_text("import no_such_library\n")
    (tmp_path / "my_failing_code.py").write_text("raise ValueError('boom')\n")
    before, known = list(sys.path), set(sys.modules)
    look_in(tmp_path)
    yield tmp_path
    sys.path[:] = before
    for module in set(sys.modules) - known:
        del sys.modules[module]


def test_a_module_beside_the_configuration_is_found_and_travels_by_value(folder: Path) -> None:
    found = named("my_named_code:MyEnv", "env_class")
    assert found.__name__ == "MyEnv"
    pickled = cloudpickle.dumps(found)  # type: ignore[no-untyped-call]
    del sys.modules["my_named_code"]
    sys.path.remove(str(folder.resolve()))
    assert cloudpickle.loads(pickled).__name__ == "MyEnv", "a process that cannot import it has it all the same"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("MyEnv", "`module:Name` is needed"),
        ("my_named_code:MyEnf", r"has no 'MyEnf' \(did you mean 'MyEnv'\?\)"),
        ("no_such_module:X", "there is no module 'no_such_module'"),
        ("no_such_package.inner:X", "there is no module 'no_such_package'"),
        ("my_broken_code:X", "my_broken_code itself needs a module 'no_such_library'"),
        ("my_failing_code:X", "importing my_failing_code fails: ValueError: boom"),
    ],
)
def test_the_missing_piece_is_named(folder: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as caught:
        named(text, "env_class")
    assert "env_class is" in str(caught.value)


def test_data_of_a_package_and_paths_are_no_code() -> None:
    assert is_named("my.module:bars")
    for other in (
        "gym_anytrading:GOOGL",
        "prices.csv",
        "s3://bucket/x.parquet",
        "/data/x.csv",
        "models:/name@champion",
    ):
        assert not is_named(other)
