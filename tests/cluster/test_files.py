"""The cluster files: valid against Ray's own schema, and naming entry points that exist."""

from __future__ import annotations

import ast
import warnings
from pathlib import Path
from typing import Any

import yaml

CLUSTER = Path(__file__).parents[2] / "cluster"


def read(name: str) -> Any:
    return yaml.safe_load((CLUSTER / name).read_text())


def test_the_launcher_file_passes_rays_own_validation() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's autoscaler imports
        from ray.autoscaler._private.util import prepare_config, validate_config
    validate_config(prepare_config(read("local.yaml")))


def test_the_folders_it_mounts_are_in_the_repository() -> None:
    for local in read("local.yaml")["file_mounts"].values():
        assert (CLUSTER.parent / local).is_dir()


def test_the_runtime_environment_is_one_ray_accepts_and_holds_no_secret() -> None:
    from ray.runtime_env import RuntimeEnv

    values = read("runtime_env.yaml")
    RuntimeEnv(**values)
    assert set(values["env_vars"]) == {"MLFLOW_TRACKING_URI"}


def test_the_entry_calls_the_command_line_that_exists() -> None:
    from drl_ray_tracking import cli

    tree = ast.parse((CLUSTER / "submit_entry.py").read_text())
    imported = [alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert imported == ["main"]
    assert callable(cli.main)
    assert "train" in {command.name or command.callback.__name__ for command in cli.app.registered_commands}
