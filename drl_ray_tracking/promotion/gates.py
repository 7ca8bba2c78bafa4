"""The gates a model must pass to become champion: thresholds from YAML, and a verdict in words on each.

What cannot be computed never passes: a gate that is not wanted is switched off with `null`, in the open.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.training.thresholds import Verdict, judged
from drl_ray_tracking.training.yaml_file import read_mapping

# What MLflow, its URIs (`models:/NAME/3`, `models:/NAME@champion`) and a file system all take.
_MODEL_NAME: Final = re.compile(r"(?=.*\w)[\w][\w .\-]{0,199}")
_VERSION: Final = re.compile(r"\d+\.\d+\.\d+")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Gates(_Part):
    """Thresholds, on the backtest of the candidate; `null` switches a gate off.

    Attributes:
        min_trades: closed trades.
        min_deflated_sharpe: probability that the true Sharpe ratio beats what luck gives the best of all that
            was looked at.
        max_pbo: probability of backtest overfitting over every evaluation of the experiment on these bars.
        max_drawdown: as a fraction of the peak.
        min_stressed_sharpe: annualised Sharpe ratio with fee and slippage times `cost_factor`.
    """

    min_trades: int | None = Field(default=30, ge=0)
    min_deflated_sharpe: float | None = Field(default=0.95, ge=0, le=1)
    max_pbo: float | None = Field(default=0.5, ge=0, le=1)
    max_drawdown: float | None = Field(default=0.3, ge=0, le=1)
    min_stressed_sharpe: float | None = 0.0


class PromotionConfig(_Part):
    """The file `drl-track promote --config` takes.

    Attributes:
        model: the registered model's name.
        window: what the candidate is backtested on; every look at `test` is counted on the experiment.
        cost_factor: multiplies fee and slippage for the stressed backtest.
        semantic_version: of the new version; without it, the champion's with the minor number raised.
        gates: the thresholds.
    """

    model: str
    window: Literal["validation", "test"] = "validation"
    cost_factor: float = Field(default=2.0, gt=1)
    semantic_version: str | None = None
    gates: Gates = Gates()

    @field_validator("model")
    @classmethod
    def _named(cls, name: str) -> str:
        if not _MODEL_NAME.fullmatch(name):
            raise ValueError(
                "a model's name is 1 to 200 letters, digits, spaces, dots, dashes and underscores, "
                "and starts with a letter or digit"
            )
        return name

    @field_validator("semantic_version")
    @classmethod
    def _versioned(cls, version: str | None) -> str | None:
        if version is not None and not _VERSION.fullmatch(version):
            raise ValueError("a semantic version is three numbers, such as 1.4.0")
        return version


def load_promotion(path: str | Path) -> PromotionConfig:
    """Reads and validates a YAML file.

    Raises:
        ConfigurationError: no such file, no YAML, or anything in it that is not allowed; all problems at once.
    """
    return parse_promotion(read_mapping(Path(path)), str(path))


def parse_promotion(given: Mapping[str, Any], where: str) -> PromotionConfig:
    """Validates a configuration given as a mapping; `where` names it in the error (see `load_promotion`)."""
    try:
        return PromotionConfig.model_validate(given)
    except ValidationError as error:
        lines = []
        for item in error.errors():
            key = ".".join(str(part) for part in item["loc"])
            what = "is needed and missing" if item["type"] == "missing" else f"{item['msg']} (given {item['input']!r})"
            lines.append(f"\n  {key}: {what.removeprefix('Value error, ')}")
        raise ConfigurationError(f"{where}: {len(lines)} problem(s){''.join(lines)}") from error


@dataclass(frozen=True)
class Evidence:
    """What the gates judge; None where it cannot be computed, and why in `missing` under the same name."""

    trades: float | None
    deflated_sharpe: float | None
    pbo: float | None
    drawdown: float | None
    stressed_sharpe: float | None
    missing: Mapping[str, str]


def judge(gates: Gates, evidence: Evidence) -> tuple[Verdict, ...]:
    """Returns a verdict for every gate that is on, in the order of `Gates`."""
    asked = (
        ("min_trades", evidence.trades, "trades"),
        ("min_deflated_sharpe", evidence.deflated_sharpe, "deflated_sharpe"),
        ("max_pbo", evidence.pbo, "pbo"),
        ("max_drawdown", evidence.drawdown, "drawdown"),
        ("min_stressed_sharpe", evidence.stressed_sharpe, "stressed_sharpe"),
    )
    verdicts = []
    for gate, value, name in asked:
        threshold = getattr(gates, gate)
        if threshold is None:
            continue
        verdicts.append(judged(gate, threshold, value, evidence.missing.get(name, "it is undefined")))
    return tuple(verdicts)
