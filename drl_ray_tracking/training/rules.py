"""Rules a trained agent must keep, as YAML: what a risk desk or a proprietary-trading firm asks, judged in words.

Judged are the episodes of one evaluation, each an account of its own. What cannot be computed fails, and says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from drl_ray_tracking import names
from drl_ray_tracking.episodes import EpisodeRecord, EpisodeSummary
from drl_ray_tracking.episodes.summary import merge_all
from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.training.account import Account, account_of
from drl_ray_tracking.training.thresholds import Verdict, judged
from drl_ray_tracking.training.yaml_file import read_mapping

# Rule -> the KPI it is about.
_KPIS: Final = {
    "min_sharpe": "sharpe",
    "max_drawdown": "max_drawdown",
    "min_profit_factor": "profit_factor",
    "min_trades": "trades",
    "min_win_rate": "win_rate",
}
_ACCOUNT: Final = {
    "max_consecutive_losses": "consecutive_losses",
    "max_daily_loss": "daily_loss",
    "max_total_loss": "total_loss",
    "min_trading_days": "trading_days",
}
_NEED_TRADES: Final = ("min_win_rate", "min_profit_factor")  # luck, on a handful of trades


class Rules(BaseModel):
    """Thresholds; a rule that is left out, or `null`, is off.

    Attributes:
        min_sharpe: annualised Sharpe ratio over all bars.
        max_drawdown: of the worst episode, a fraction of the peak.
        min_profit_factor: won over lost, closed trades net of fees.
        min_trades: closed trades. Fewer also fail `min_win_rate` and `min_profit_factor`: they say nothing then.
        min_win_rate: a fraction; breakeven trades count on neither side.
        max_consecutive_losses: losing trades in a row.
        max_daily_loss: how far equity may fall, within a day, below what the day began with.
        daily_loss_of: what `max_daily_loss` is a fraction of: the `initial` equity, or the `day`'s.
        max_total_loss: how far equity may ever fall below the initial one, a fraction of it.
        min_trading_days: days on which a position was opened.
        timezone: whose midnight begins a day, "Europe/Prague".
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_sharpe: float | None = None
    max_drawdown: float | None = Field(default=None, gt=0, le=1)
    min_profit_factor: float | None = Field(default=None, ge=0)
    min_trades: int | None = Field(default=None, ge=0)
    min_win_rate: float | None = Field(default=None, ge=0, le=1)
    max_consecutive_losses: int | None = Field(default=None, ge=0)
    max_daily_loss: float | None = Field(default=None, gt=0, le=1)
    daily_loss_of: Literal["initial", "day"] = "initial"
    max_total_loss: float | None = Field(default=None, gt=0, le=1)
    min_trading_days: int | None = Field(default=None, ge=0)
    timezone: str = "UTC"

    @field_validator("timezone")
    @classmethod
    def _known(cls, zone: str) -> str:
        try:
            ZoneInfo(zone)
        except (KeyError, ValueError, OSError) as error:
            raise ValueError("it is no IANA time zone, such as UTC or Europe/Prague") from error
        return zone

    @model_validator(mode="after")
    def _any(self) -> Rules:
        if not self.on:
            raise ValueError(f"no rule is on; there are {', '.join((*_KPIS, *_ACCOUNT))}")
        return self

    @property
    def on(self) -> dict[str, float]:
        """The rules that are on, with their thresholds."""
        chosen = {rule: getattr(self, rule) for rule in (*_KPIS, *_ACCOUNT)}
        return {rule: float(threshold) for rule, threshold in chosen.items() if threshold is not None}


@dataclass(frozen=True)
class Ruling:
    """What rules say of an evaluation: a verdict each, and the values no other metric has."""

    verdicts: tuple[Verdict, ...]
    account: Account

    @property
    def passed(self) -> bool:
        """Whether every rule was kept."""
        return all(verdict.passed for verdict in self.verdicts)

    @property
    def broken(self) -> tuple[str, ...]:
        """The rules that were not kept."""
        return tuple(verdict.gate for verdict in self.verdicts if not verdict.passed)

    def tags(self) -> dict[str, str]:
        """Returns the verdict as tags of a run."""
        return {
            names.TAG_RULES: "passed" if self.passed else f"failed: {', '.join(self.broken)}",
            **{
                f"{names.TAG_RULE}.{verdict.gate}": f"{'passed' if verdict.passed else 'failed'}: {verdict.said}"
                for verdict in self.verdicts
            },
        }

    def metrics(self) -> dict[str, float]:
        """Returns the verdict as metrics of a run: 1 where all rules were kept, how many were not, and the values."""
        values = {name: getattr(self.account, name) for name in _ACCOUNT.values()}
        return {
            f"{names.RULES}/passed": float(self.passed),
            f"{names.RULES}/broken": float(len(self.broken)),
            **{f"{names.RULES}/{name}": value for name, value in values.items() if value is not None},
        }

    def __str__(self) -> str:
        lines = [f"{'kept  ' if one.passed else 'BROKEN'} {one.gate}: {one.said}" for one in self.verdicts]
        return "\n".join(lines)


def judge_episodes(rules: Rules, episodes: Sequence[EpisodeRecord]) -> Ruling:
    """Judges the episodes of one evaluation, in their order."""
    kpis = merge_all([EpisodeSummary.of(record) for record in episodes]).compute()
    account = account_of(episodes, zone=rules.timezone, of_the_day=rules.daily_loss_of == "day")
    trades = kpis.get("trading/trades")
    too_few = rules.min_trades is not None and trades is not None and trades < rules.min_trades
    verdicts = []
    for rule, threshold in rules.on.items():
        if rule in _ACCOUNT:
            quantity = _ACCOUNT[rule]
            value, why = getattr(account, quantity), account.missing.get(quantity, "no trade was closed")
        else:
            key = f"trading/{_KPIS[rule]}"
            value, why = kpis.get(key), _reason(kpis, key)
        if too_few and rule in _NEED_TRADES:
            value, why = None, f"{trades:g} trades are too few to tell, min_trades is {rules.min_trades}"
        verdicts.append(judged(rule, threshold, value, why))
    return Ruling(tuple(verdicts), account)


def _reason(kpis: Mapping[str, float], key: str) -> str:
    prefix = f"undefined/{key}/"
    reasons = [name.removeprefix(prefix) for name in kpis if name.startswith(prefix)]
    return f"{key} is undefined: {', '.join(reasons) or 'nothing was traded'}"


def load_rules(path: str | Path) -> Rules:
    """Reads rules from a YAML file, see `configs/rules.yaml`.

    Raises:
        ConfigurationError: no such file, no YAML, or anything in it that is not allowed; all problems at once.
    """
    return parse_rules(read_mapping(Path(path), "rules", of="rules"), str(path))


def parse_rules(given: Mapping[str, Any], where: str) -> Rules:
    """Validates rules given as a mapping; `where` names them in the error (see `load_rules`)."""
    try:
        return Rules.model_validate(given)
    except ValidationError as error:
        lines = []
        for item in error.errors():
            key = ".".join(str(part) for part in item["loc"])
            if item["type"] == "extra_forbidden":
                known = list(Rules.model_fields)
                what = f"unknown rule{names.suggestion(key, known) or f'; there are {chr(44).join(known)}'}"
            else:
                shown = "" if isinstance(item["input"], Mapping) else f" (given {item['input']!r})"
                what = item["msg"].removeprefix("Value error, ") + shown
            lines.append(f"\n  {key or 'the rules'}: {what}")
        raise ConfigurationError(f"{where}: {len(lines)} problem(s){''.join(lines)}") from error
