"""A sweep keeps its identity across drivers; trials get tags and readable names."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from pyarrow.fs import LocalFileSystem

from drl_ray_tracking import names
from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.tracking.identity import claim_sweep, working_diff
from drl_ray_tracking.trials.identity import check_run_name, identify_trial
from drl_ray_tracking.trials.redaction import REDACTED

PATTERN = "{algorithm}-{market}-{timeframe}-{seed}-{hash}"


def test_every_driver_of_a_sweep_finds_the_same_id_and_a_higher_epoch(tmp_path: Path) -> None:
    first = claim_sweep(LocalFileSystem(), str(tmp_path / "exp"), "exp")
    second = claim_sweep(LocalFileSystem(), str(tmp_path / "exp"), "exp")
    other = claim_sweep(LocalFileSystem(), str(tmp_path / "other"), "other")
    assert (first.epoch, second.epoch) == (1, 2)
    assert first.sweep_id == second.sweep_id != other.sweep_id


@pytest.mark.parametrize("content", ["", "{", "[]", '{"sweep_id": "a"}'])
def test_a_broken_identity_file_makes_a_new_sweep(tmp_path: Path, content: str) -> None:
    (tmp_path / names.IDENTITY_FILE).write_text(content)
    claimed = claim_sweep(LocalFileSystem(), str(tmp_path), "exp")
    assert claimed.epoch == 1
    assert json.loads((tmp_path / names.IDENTITY_FILE).read_text())["sweep_id"] == claimed.sweep_id


def test_a_trading_trial() -> None:
    config = {
        "env": "package.envs:TradingEnv",
        "seed": 3,
        "env_config": {"segments": [{"symbol": "GOOGL"}, {"symbol": "GOOGL"}], "timeframe": "1d"},
    }
    trial = identify_trial("t_00001", "PPO", config, "1f2c9a334455", {})
    assert trial.run_name(PATTERN) == "ppo-GOOGL-1d-s3-1f2c9a"
    assert trial.tags() == {
        names.TAG_ALGORITHM: "PPO",
        names.TAG_ENV: "TradingEnv",
        names.TAG_SYMBOLS: "GOOGL",
        names.TAG_TIMEFRAME: "1d",
        names.TAG_SEED: "3",
        names.TAG_CONFIG_HASH: "1f2c9a334455",
    }


def test_a_plain_trial_has_its_id_in_its_name() -> None:
    trial = identify_trial("abc12_00007", "train_fn", {"lr": 1}, "deadbeef0000", {})
    assert trial.run_name(PATTERN) == "train_fn-00007-deadbe"


def test_sweep_tags_fill_what_the_configuration_lacks() -> None:
    trial = identify_trial("x", "PPO", {}, "h" * 12, {names.TAG_SYMBOLS: "A,B", names.TAG_TIMEFRAME: "1h"})
    assert trial.symbols == ("A", "B")
    assert trial.timeframe == "1h"


def test_many_symbols_are_counted() -> None:
    trial = identify_trial("x", "PPO", {"env_config": {"symbols": list("ABCDE")}, "seed": 0}, "abcdef", {})
    assert trial.run_name("{market}-{seed}") == "A+B+C+2-s0"


@pytest.mark.parametrize("pattern", ["{nope}", "{", "{0}", "{seed.nope}"])
def test_a_pattern_that_cannot_be_filled_is_refused(pattern: str) -> None:
    with pytest.raises(ConfigurationError, match="may use"):
        check_run_name(pattern)


def test_the_diff_is_redacted_and_survives_strange_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=t", "-c", "user.email=t@t"]
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    source = tmp_path / "a.txt"
    source.write_text("one\n")
    git("init")
    git("add", ".")
    git("commit", "-m", "x")
    monkeypatch.chdir(tmp_path)
    assert working_diff(()) == ""
    source.write_bytes(b"caf\xe9 and topsecretvalue\n")
    diff = working_diff(("topsecretvalue",))
    assert "+caf" in diff
    assert REDACTED in diff
    assert "topsecretvalue" not in diff


def test_a_seed_that_is_none_hides_none_of_the_environments() -> None:
    trial = identify_trial("x", "PPO", {"seed": None, "env_config": {"seed": 7}}, "abcdef", {})
    assert trial.seed == "7"
    assert identify_trial("x", "PPO", {"seed": 0, "env_config": {"seed": 7}}, "abcdef", {}).seed == "0"
