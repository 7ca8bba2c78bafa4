"""Rules: quantities on accounts worked out by hand, verdicts in words, and errors that name every problem."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from drl_ray_tracking.episodes import EpisodeRecord
from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.training.account import account_of
from drl_ray_tracking.training.rules import Rules, judge_episodes, load_rules, parse_rules

CONFIGS = Path(__file__).parents[2] / "configs"
HOUR = 3600.0
# Six marks: 20:00 and 22:00 UTC of 1 May, then 00:00 ... of 2 May. In Prague (UTC+2) the second is 2 May already.
TIMES = np.array([pd.Timestamp("2024-05-01 20:00").timestamp() + 2 * HOUR * index for index in range(6)])
EQUITY = np.array([100.0, 104.0, 101.0, 96.0, 98.0, 97.0])
# Long over two bars, flat, short, long again: two closed trades, both won, and one still open.
POSITION = np.array([1.0, 1.0, 0.0, -1.0, 1.0])


def account(**changed: object) -> EpisodeRecord:
    columns: dict[str, object] = {"equity": EQUITY, "position": POSITION, "timestamp": TIMES, **changed}
    return EpisodeRecord(0.0, 5, **columns)  # type: ignore[arg-type]


def test_losses_of_a_day_and_in_all_worked_out_by_hand() -> None:
    utc = account_of([account()])
    # 2 May in UTC begins with 104, the last mark of 1 May, and falls to 96.
    assert utc.daily_loss == pytest.approx(8 / 100)
    assert utc.total_loss == pytest.approx(4 / 100)
    assert account_of([account()], of_the_day=True).daily_loss == pytest.approx(8 / 104)
    # In Prague 2 May begins with 100, before the mark at 22:00 UTC, and falls to 96 as well.
    assert account_of([account()], zone="Europe/Prague").daily_loss == pytest.approx(4 / 100)
    assert (utc.trading_days, account_of([account()], zone="Europe/Prague").trading_days) == (2.0, 2.0)


def test_the_worst_account_counts_and_days_are_told_once() -> None:
    rising = account(equity=np.linspace(100.0, 110.0, 6))
    both = account_of([rising, account()])
    assert (both.daily_loss, both.total_loss, both.trading_days) == (pytest.approx(0.08), pytest.approx(0.04), 2.0)
    assert account_of([rising]).total_loss == 0.0


def test_losing_trades_in_a_row() -> None:
    falling = account(equity=np.array([100.0, 99.0, 98.0, 97.0, 96.0, 95.0]), position=np.array([1.0, 0, 1.0, 0, 1.0]))
    assert account_of([falling]).consecutive_losses == 2.0, "the third trade is still open"
    mixed = account(equity=np.array([100.0, 99.0, 99.0, 105.0, 105.0, 100.0]), position=np.array([1.0, 0, 1.0, 0, 1.0]))
    assert account_of([mixed]).consecutive_losses == 1.0


def test_a_ruined_account_has_lost_everything() -> None:
    ruined = account(equity=np.array([100.0, 90.0, 0.0, 50.0, 50.0, 50.0]))
    assert account_of([ruined]).total_loss == 1.0


def test_what_cannot_be_told_says_why_and_breaks_its_rules() -> None:
    rules = Rules(max_daily_loss=0.5, min_trading_days=1, max_total_loss=0.5, min_sharpe=0.0)
    ruling = judge_episodes(rules, [account(timestamp=None)])
    said = {verdict.gate: verdict.said for verdict in ruling.verdicts}
    assert ruling.broken == ("min_sharpe", "max_daily_loss", "min_trading_days")
    assert said["max_daily_loss"] == "no value (an episode has no timestamps); at most 0.5 is needed"
    assert "trading/sharpe is undefined" in said["min_sharpe"], "nobody said how many bars a year has"
    assert judge_episodes(rules, []).broken == tuple(rules.on)
    plain = judge_episodes(Rules(max_total_loss=0.5), [EpisodeRecord(1.0, 5)])
    assert plain.verdicts[0].said.startswith("no value (an episode has no equity)")


def test_a_win_rate_needs_trades() -> None:
    few = judge_episodes(Rules(min_win_rate=0.1, min_trades=30, min_profit_factor=0.1), [account()])
    assert few.broken == ("min_profit_factor", "min_trades", "min_win_rate")
    assert "2 trades are too few to tell, min_trades is 30" in str(few)
    assert judge_episodes(Rules(min_win_rate=0.1, min_trades=2), [account()]).passed


def test_the_verdict_as_tags_and_metrics() -> None:
    ruling = judge_episodes(Rules(max_total_loss=0.1, max_daily_loss=0.05), [account()])
    assert ruling.tags() == {
        "drl.rules": "failed: max_daily_loss",
        "drl.rule.max_total_loss": "passed: 0.04; at most 0.1 is needed",
        "drl.rule.max_daily_loss": "failed: 0.08; at most 0.05 is needed",
    }
    metrics = ruling.metrics()
    assert (metrics["rules/passed"], metrics["rules/broken"], metrics["rules/trading_days"]) == (0.0, 1.0, 2.0)
    kept = judge_episodes(Rules(max_total_loss=0.1), [account()])
    assert (kept.tags()["drl.rules"], kept.metrics()["rules/passed"]) == ("passed", 1.0)


def test_the_example_is_read_and_every_problem_is_said_at_once(tmp_path: Path) -> None:
    assert len(load_rules(CONFIGS / "rules.yaml").on) == 9
    with pytest.raises(ConfigurationError) as refused:
        parse_rules({"max_daily_los": 0.05, "max_drawdown": 7, "timezone": "Prague", "min_sharpe": "high"}, "my.yaml")
    said = str(refused.value)
    for part in ("my.yaml: 4 problem(s)", "did you mean 'max_daily_loss'", "given 7", "given 'Prague'", "given 'high'"):
        assert part in said
    with pytest.raises(ConfigurationError, match="no rule is on; there are min_sharpe"):
        parse_rules({"timezone": "UTC"}, "my.yaml")
    with pytest.raises(ConfigurationError, match=r"none\.yaml cannot be read"):
        load_rules(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(ConfigurationError, match="holds list"):
        load_rules(tmp_path / "list.yaml")
