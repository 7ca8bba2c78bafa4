"""Who a trial is: its tags and its readable name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from drl_ray_tracking import names
from drl_ray_tracking.errors import ConfigurationError

RUN_NAME: Final = "{algorithm}-{market}-{timeframe}-{fold}-{seed}-{hash}"


@dataclass(frozen=True)
class TrialIdentity:
    """What tells one trial from another; parts that do not apply are empty."""

    trial_id: str
    algorithm: str
    env: str
    symbols: tuple[str, ...]
    timeframe: str
    seed: str
    config_hash: str
    fold: str = ""

    def tags(self) -> dict[str, str]:
        """Returns the parts as tags."""
        parts = {
            names.TAG_ALGORITHM: self.algorithm,
            names.TAG_ENV: self.env,
            names.TAG_SYMBOLS: ",".join(self.symbols),
            names.TAG_TIMEFRAME: self.timeframe,
            names.TAG_SEED: self.seed,
            names.TAG_CONFIG_HASH: self.config_hash,
            names.TAG_FOLD: self.fold,
        }
        return {key: value for key, value in parts.items() if value}

    def run_name(self, pattern: str) -> str:
        """Fills a pattern such as `{algorithm}-{market}-{timeframe}-{fold}-{seed}-{hash}`; empty parts fall out.

        `{market}` is the symbols, or the environment's name where nothing is traded; a trial without a
        seed carries the end of its trial id instead, so that names stay apart.
        """
        symbols = "+".join(self.symbols[:3]) + (f"+{len(self.symbols) - 3}" if len(self.symbols) > 3 else "")
        parts = {
            "algorithm": self.algorithm.lower(),
            "market": symbols or self.env,
            "timeframe": self.timeframe,
            "fold": f"f{self.fold}" if self.fold else "",
            "seed": f"s{self.seed}" if self.seed else self.trial_id[-5:],
            "hash": self.config_hash[:6],
            "trial_id": self.trial_id,
            "env": self.env,
        }
        filled = pattern.format(**parts)
        return re.sub(r"-{2,}", "-", filled).strip("-") or self.trial_id


def check_run_name(pattern: str) -> None:
    """Raises ConfigurationError where `TrialIdentity.run_name` could not fill the pattern."""
    probe = TrialIdentity("id", "algorithm", "env", (), "", "", "hash")
    try:
        probe.run_name(pattern)
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise ConfigurationError(
            f"run_name={pattern!r} cannot be filled ({type(error).__name__}: {error}); it may use {{algorithm}}, "
            "{market}, {timeframe}, {fold}, {seed}, {hash}, {trial_id} and {env}"
        ) from error


def identify_trial(
    trial_id: str, trainable: str, config: Mapping[str, Any], digest: str, tags: Mapping[str, str]
) -> TrialIdentity:
    """Reads a trial's identity off its configuration; the sweep's tags fill what the configuration lacks."""
    env_config = config.get("env_config")
    env_config = env_config if isinstance(env_config, Mapping) else {}
    seed = config.get("seed")
    if seed is None:  # RLlib's default is in every configuration
        seed = env_config.get("seed")
    env = config.get("env")
    return TrialIdentity(
        trial_id=trial_id,
        algorithm=trainable,
        env=str(env).rsplit(":", 1)[-1].rsplit(".", 1)[-1] if env else "",
        symbols=_symbols(env_config) or tuple(part for part in tags.get(names.TAG_SYMBOLS, "").split(",") if part),
        timeframe=str(env_config.get("timeframe", tags.get(names.TAG_TIMEFRAME, ""))),
        seed="" if seed is None else str(seed),
        config_hash=digest,
        fold=tags.get(names.TAG_FOLD, ""),
    )


def _symbols(env_config: Mapping[str, Any]) -> tuple[str, ...]:
    segments = env_config.get("segments")
    found: list[str] = []
    if isinstance(segments, Sequence):
        found = [str(segment["symbol"]) for segment in segments if isinstance(segment, Mapping) and "symbol" in segment]
    for key in ("symbol", "symbols"):
        given = env_config.get(key)
        if isinstance(given, str):
            found.append(given)
        elif isinstance(given, Sequence):
            found.extend(str(item) for item in given)
    return tuple(dict.fromkeys(found))
