"""What a trial's pictures show: marks where trades were, months that compound, shares that add up, text as text."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_hex
from matplotlib.dates import date2num

from drl_ray_tracking import names
from drl_ray_tracking.analysis import trial_pictures
from drl_ray_tracking.analysis.action_mix import action_mix
from drl_ray_tracking.analysis.equity import equity_curves
from drl_ray_tracking.analysis.palette import COLOURS
from drl_ray_tracking.analysis.return_pictures import _by_month, monthly_returns, return_distribution
from drl_ray_tracking.analysis.symbol_table import COLUMNS, symbol_table
from drl_ray_tracking.analysis.trace import Trace, trace_of, traces
from drl_ray_tracking.analysis.trade_chart import trade_chart
from drl_ray_tracking.analysis.trial_curves import trial_curves
from drl_ray_tracking.analysis.trial_pictures import Material, draw
from drl_ray_tracking.episodes import Conventions, EpisodeRecord, EpisodeSummary
from drl_ray_tracking.errors import DataError

HOSTILE = "<img src=x onerror=alert(1)> $\\frac{$ | ünï 🦄\n漢字"
START = 1.42e9  # 2014-12-31
Episode = Callable[..., pd.DataFrame]


@pytest.fixture
def episode() -> Episode:
    """Makes an episode that trades without costs, as a series has it."""

    def make(positions: list[float], moves: list[float] | None = None, **changes: Any) -> pd.DataFrame:
        held = np.array(positions)
        moved = np.array(moves if moves is not None else [0.01, -0.02] * len(held))[: len(held)]
        after_reset = np.concatenate(([np.nan], held))
        frame = pd.DataFrame(
            {
                "iteration": 1,
                "step": 1000,
                "episode": 0,
                "symbol": "GOOGL",
                "window": "0",
                "split": "validation",
                "fold": "single",
                "agent": "",
                "periods_per_year": 252.0,
                "bar": np.arange(len(held) + 1),
                "timestamp": START + 86_400.0 * np.arange(len(held) + 1),
                "equity": 1e4 * np.concatenate(([1.0], np.cumprod(1.0 + held * moved))),
                "price": 100.0 * np.concatenate(([1.0], np.cumprod(1.0 + moved))),
                "position": after_reset,
                "fee": np.concatenate(([np.nan], np.zeros(len(held)))),
                "reward": after_reset,
                "action": after_reset + 1.0,
            }
        )
        return frame.assign(**changes)

    return make


def png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def words(figure: Any) -> str:
    found = [text.get_text() for axes in figure.axes for text in (*axes.texts, axes.title)]
    legends = [axes.get_legend() for axes in figure.axes if axes.get_legend() is not None]
    found += [text.get_text() for legend in legends for text in legend.get_texts()]
    found += [axes.get_title(loc="left") for axes in figure.axes]
    return "\n".join([*found, *(text.get_text() for text in figure.texts)])


def marks(figure: Any) -> dict[str, list[tuple[float, float]]]:
    """Colour of a scatter -> its points (bar, price), from the panel with the price."""
    found = {}
    for collection in figure.axes[0].collections:
        offsets = np.asarray(collection.get_offsets())
        if isinstance(collection, PathCollection) and len(offsets):
            bars = (offsets[:, 0] - date2num(np.datetime64(int(START), "s"))).round(6)
            found[to_hex(collection.get_facecolor()[0]).upper()] = list(
                zip(bars.tolist(), offsets[:, 1].round(6).tolist(), strict=True)
            )
    return found


def test_entries_and_exits_are_at_the_bar_and_price_they_were_traded_at(episode: Episode) -> None:
    # Long over bars 1 and 2, flat, short over bar 4, then long until the end: entered at marks 1, 4 and 5.
    bars = episode([0, 1, 1, 0, -1, 1, 1], [0.1, 0.1, -0.05, 0.2, 0.1, -0.3, 0.4])
    figure = trade_chart(trace_of(bars), "PPO one")
    price = bars["price"].round(6).tolist()
    assert marks(figure) == {
        COLOURS[0]: [(1.0, price[1]), (5.0, price[5])],
        COLOURS[3]: [(4.0, price[4])],
        "#FFFFFF": [(3.0, price[3]), (5.0, price[5])],
    }
    said = words(figure)
    for expected in ("2 long", "1 short", "2 exits", "1 won", "1 lost", "PPO one", "GOOGL", "2 closed trades, 1 open"):
        assert expected in said
    trace = trace_of(bars)
    assert f"agent\n{100 * trace.total_return:+.1f} %".replace("-", "−") in said
    assert f"buy and hold\n{100 * (trace.hold_return or 0.0):+.1f} %".replace("-", "−") in said
    joined = [lines for lines in figure.axes[0].collections if isinstance(lines, LineCollection)]
    assert sum(len(lines.get_segments()) for lines in joined) == 2, "a line from each entry to its exit"
    assert png(figure)


def test_the_background_is_coloured_over_every_bar_with_a_position(episode: Episode) -> None:
    figure = trade_chart(trace_of(episode([1, 0, -1, -1])), "x")
    spans = {
        to_hex(collection.get_facecolor()[0]).upper(): [
            (path.vertices[:, 0].min() - date2num(np.datetime64(int(START), "s")), np.ptp(path.vertices[:, 0]))
            for path in collection.get_paths()
        ]
        for collection in figure.axes[0].collections
        if type(collection).__name__ == "PolyCollection"
    }
    assert {colour: [(round(x, 6), round(width, 6)) for x, width in found] for colour, found in spans.items()} == {
        COLOURS[0]: [(0.0, 1.0)],
        COLOURS[3]: [(2.0, 2.0)],
    }


def test_leverage_is_drawn_where_there_is_one(episode: Episode) -> None:
    assert "leverage" not in words(trade_chart(trace_of(episode([1, 1])), "x"))
    levered = episode([1, 1]).assign(leverage=[np.nan, 2.0, 3.0])
    figure = trade_chart(trace_of(levered), "x")
    assert "leverage" in words(figure)
    assert figure.axes[1].lines[1].get_ydata().tolist()[-2:] == [3.0, 3.0]


def test_what_cannot_be_charted_says_why(episode: Episode) -> None:
    with pytest.raises(DataError, match="no prices"):
        trade_chart(trace_of(episode([1, 1], price=np.nan)), "x")
    with pytest.raises(DataError, match="no positions"):
        trade_chart(trace_of(episode([1, 1], position=np.nan)), "x")
    with pytest.raises(DataError, match="must start with an equity above zero"):
        trace_of(episode([1, 1], equity=0.0))


def test_a_trace_ends_with_its_last_known_equity_and_a_ruin_is_for_good(episode: Episode) -> None:
    cut = episode([1, 1, 1])
    cut.loc[3, "equity"] = np.nan
    assert len(trace_of(cut).position) == 2
    ruined = episode([1, 1, 1, 0, 1])
    ruined.loc[2:, "equity"] = -5.0
    trace = trace_of(ruined)
    assert trace.total_return == -1.0
    assert trace.trades.exit.tolist() == [2], "the ruin closes the trade, and nothing follows"


@pytest.mark.parametrize("stamps", [np.nan, "not a date", 7.0])
def test_bars_are_counted_where_there_are_no_times(episode: Episode, stamps: Any) -> None:
    trace = trace_of(episode([1, 0, 1], timestamp=stamps))
    assert not trace.dated and trace.x.tolist() == [0, 1, 2, 3]
    assert png(trade_chart(trace, "x"))


def test_the_distribution_leaves_flat_bars_out_and_says_how_many(episode: Episode) -> None:
    positions = [1.0, 0.0] * 50
    moves = list(np.random.default_rng(0).normal(0.001, 0.01, 100))
    bars = episode(positions, moves)
    figure = return_distribution(bars, "PPO one")
    said = words(figure)
    earned = np.array(moves)[::2]
    assert "50 bars with a position" in said and "50 without left out" in said
    assert f"mean\n{100 * earned.mean():+.2f} %".replace("-", "−") in said
    risk = np.quantile(earned, 0.05)
    assert f"5% quantile\n{100 * risk:+.2f} %".replace("-", "−") in said
    shortfall = earned[earned <= risk].mean()
    assert f"expected shortfall\n{100 * shortfall:+.2f} %".replace("-", "−") in said
    assert f"worst {100 * earned.min():+.2f} %".replace("-", "−") in said
    standard = (earned - earned.mean()) / earned.std()
    shape = f"skewness {np.mean(standard**3):.2f}\nkurtosis {np.mean(standard**4):.1f}".replace("-", "−")
    assert shape in said, "biased, as everywhere"
    assert png(figure)
    with pytest.raises(DataError, match="only 0 bars with a position"):
        return_distribution(episode([0.0] * 10), "x")


def test_months_compound_to_the_whole(episode: Episode) -> None:
    bars = episode([1.0] * 400, list(np.random.default_rng(1).normal(0.001, 0.01, 400)))
    (curve,) = equity_curves(bars)
    table = _by_month(curve)
    whole = np.prod(1.0 + table.loc[:, 1:12].fillna(0.0).to_numpy()) - 1.0
    assert whole == pytest.approx(curve.growth[-1] - 1.0, rel=1e-12)
    january = bars[(bars["timestamp"] >= 1_420_070_400) & (bars["timestamp"] < 1_422_748_800)]["equity"]
    december = bars[bars["timestamp"] < 1_420_070_400]["equity"]
    assert table.loc[2015, 1] == pytest.approx(january.iloc[-1] / december.iloc[-1] - 1.0)
    said = words(monthly_returns(bars, "PPO one"))
    assert f"{100 * table.loc[2015, 'year']:+.1f}".replace("-", "−") in said
    assert png(monthly_returns(bars, "x"))


def test_a_single_month_or_no_times_are_no_months(episode: Episode) -> None:
    with pytest.raises(DataError, match="no months to draw"):
        monthly_returns(episode([1.0] * 10, timestamp=np.nan), "x")
    with pytest.raises(DataError, match="no months to draw"):
        monthly_returns(episode([1.0] * 10).assign(timestamp=START + 86_400.0 + np.arange(11)), "x")


def test_months_of_several_symbols_have_a_panel_each_up_to_a_number(episode: Episode) -> None:
    many = pd.concat([episode([1.0] * 60, symbol=f"S{number}", episode=number) for number in range(8)])
    figure = monthly_returns(many, "x")
    assert len(figure.axes) == 6 and "2 more symbols not drawn" in words(figure)


def test_shares_of_actions_over_training_and_within_the_last_evaluation(episode: Episode) -> None:
    shares = {
        "eval/action/0_share": pd.Series([0.5, 0.2], [100, 200]),
        "eval/action/2_share": pd.Series([0.5, 0.8], [100, 200]),
    }
    figure = action_mix(shares, episode([1.0, -1.0] * 40), "PPO one")
    said = words(figure)
    assert "action 0 (−1)\n20 %" in said and "action 2 (+1)\n80 %" in said, "an action is named with what it holds"
    assert "in the evaluation at 1,000 env steps: GOOGL" in said
    tops = [axes.collections[-1].get_paths()[0].vertices[:, 1].max() for axes in figure.axes]
    assert tops == pytest.approx([1.0, 1.0]), "shares add up to one"
    colours = [[to_hex(part.get_facecolor()[0]) for part in axes.collections] for axes in figure.axes]
    assert colours[0] == colours[1], "an action has one colour"
    assert png(figure)


def test_more_actions_than_colours_are_one_grey_part(episode: Episode) -> None:
    shares = {f"eval/action/{n}_share": pd.Series([0.1, 0.1], [1, 2]) for n in range(10)}
    assert "others\n40 %" in words(action_mix(shares, None, "x"))
    rare = episode([1.0] * 10).assign(action=[np.nan, *[9.0] * 10])
    assert "others\n100 %" in words(action_mix(shares, rare, "x")), "an action that has no colour"


def test_continuous_actions_are_drawn_by_their_spread(episode: Episode) -> None:
    steps = [100, 200]
    history = {"eval/action/0_mean": pd.Series([0.1, 0.3], steps), "eval/action/0_sd": pd.Series([0.2, 0.1], steps)}
    moving = episode([0.1] * 60).assign(action=np.concatenate(([np.nan], np.linspace(-0.9, 0.95, 60))))
    figure = action_mix(history, moving, "x")
    assert "action 0\n0.3" in words(figure) and "band: 10 to 90 %" in words(figure)
    assert png(figure)


def test_nothing_done_is_nothing_to_draw(episode: Episode) -> None:
    with pytest.raises(DataError, match="neither the metrics nor the evaluation series"):
        action_mix({"eval/trading/sharpe": pd.Series([1.0], [1])}, episode([1.0], action=np.nan), "x")


def test_learning_curves_begin_with_the_objective_and_keep_the_vocabulary_together() -> None:
    steps = [100, 200]
    known = {
        "train/episode/return_mean": pd.Series([1.0, 2.0], steps),
        "eval/episode/return_mean": pd.Series([np.nan, 3.0], steps),
        "eval/trading/sharpe": pd.Series([0.5, 1.5], steps),
        "learner/a/entropy": pd.Series([0.6, 0.5], steps),
        "learner/b/entropy": pd.Series([0.6, 0.4], steps),
    }
    figure = trial_curves(known, "PPO one", "eval/trading/sharpe")
    headings = [axes.get_title(loc="left") for axes in figure.axes]
    assert headings == ["Sharpe ratio, evaluated", "return of an episode", "entropy of the policy"]
    said = words(figure)
    for expected in ("train\n2", "eval\n3", "a\n0.5", "b\n0.4", "200 env steps"):
        assert expected in said
    assert png(figure)


def test_any_metrics_make_curves_and_none_make_none() -> None:
    others = {f"m{number}": pd.Series([1.0, 2.0], [1, 2]) for number in range(9)}
    figure = trial_curves(others, "x", "m7")
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["m7", "m0", "m1", "m2", "m3", "m4"]
    with pytest.raises(DataError, match="no metric"):
        trial_curves({"m": pd.Series([np.nan], [1])}, "x")


def test_the_table_of_symbols_has_the_kpis_of_its_episodes(episode: Episode) -> None:
    rng = np.random.default_rng(2)
    frames, records = [], {}
    for number, symbol in enumerate(["A", "B", "A"]):
        moves = list(rng.normal(0.001, 0.01, 50))
        frame = episode(
            list(rng.integers(-1, 2, 50).astype(float)), moves, symbol=symbol, episode=number, window=str(number)
        )
        frames.append(frame)
        records.setdefault(symbol, []).append(
            EpisodeRecord(
                episode_return=0.0,
                length=50,
                equity=frame["equity"].to_numpy(),
                position=frame["position"].to_numpy()[1:],
                price=frame["price"].to_numpy(),
                fee=frame["fee"].to_numpy()[1:],
                conventions=Conventions(periods_per_year=252.0),
            )
        )
    table = symbol_table(pd.concat(frames)).set_index("symbol")
    assert tuple(table.reset_index().columns) == COLUMNS
    for symbol, own in records.items():
        whole = EpisodeSummary.empty()
        for record in own:
            whole = whole.merge(EpisodeSummary.of(record))
        kpis = whole.compute()
        for kpi in ("total_return", "sharpe", "max_drawdown", "trades", "win_rate", "exposure"):
            assert table.loc[symbol, kpi] == pytest.approx(kpis[f"trading/{kpi}"]), kpi
        hold = np.prod([record.price[-1] / record.price[0] for record in own if record.price is not None]) - 1.0
        assert table.loc[symbol, "buy_and_hold"] == pytest.approx(hold)
        assert table.loc[symbol, "windows"] == len(own)


def test_each_agent_of_a_market_has_a_curve_and_a_row_of_its_own(episode: Episode) -> None:
    both = pd.concat([episode([1.0] * 5, agent="a0"), episode([-1.0] * 5, agent="a1", episode=1)])
    assert [curve.symbol for curve in equity_curves(both)] == ["GOOGL a0", "GOOGL a1"]
    assert symbol_table(both)["symbol"].tolist() == ["GOOGL a0", "GOOGL a1"]
    assert [trace.labels["agent"] for trace in traces(both)] == ["a0", "a1"]


# --- all of them together ----------------------------------------------------------------------------------


def material(folder: Path, frame: pd.DataFrame, **tags: str) -> Path:
    folder.mkdir(exist_ok=True)
    points = {
        "eval/trading/sharpe": [[500, 0.5, 10], [1000, 0.9, 20], [1000, 1.5, 30]],
        "train/episode/return_mean": [[500, float("nan"), 10], [1000, 2.0, 20]],
    }
    (folder / names.MATERIAL_FILE).write_text(
        json.dumps({"tags": {"mlflow.runName": "PPO one", **tags}, "points": points})
    )
    earlier = frame.assign(iteration=1, step=500)
    pd.concat([earlier, frame.assign(iteration=2)]).to_parquet(folder / names.SERIES_FILE)
    frame.assign(iteration=2).to_parquet(folder / names.BEST_EPISODE_FILE)
    earlier.to_parquet(folder / names.WORST_EPISODE_FILE)
    return folder


def test_the_last_evaluation_and_the_points_that_count_are_drawn(episode: Episode, tmp_path: Path) -> None:
    attempts = json.dumps([[1, 0, 0], [2, 25, 500]])
    tags = {names.TAG_ATTEMPTS: attempts, names.TAG_OBJECTIVE: "evaluation/env_runners/trading/sharpe"}
    found = Material.read(material(tmp_path / "m", episode([1.0] * 60), **tags))
    assert found.name == "PPO one" and found.objective == "eval/trading/sharpe"
    assert found.histories["eval/trading/sharpe"].to_dict() == {500: 0.5, 1000: 1.5}, "0.9 was superseded"
    assert found.bars is not None and found.bars["step"].unique().tolist() == [1000]
    assert draw(found, tmp_path / "out") == {}
    pictures = {path.name for path in (tmp_path / "out" / names.PICTURES_ARTIFACT).iterdir()}
    assert {"trades_best_episode.png", "trades_worst_episode.png", "equity_curve.png"} <= pictures
    assert (tmp_path / "out" / names.SYMBOLS_ARTIFACT).is_file()


def test_a_picture_that_fails_costs_no_other(episode: Episode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Material.read(material(tmp_path / "m", episode([1.0] * 60)))
    drawings = trial_pictures._drawings

    def with_a_broken_one(given: Material) -> dict[str, Callable[[], Any]]:
        return {"broken.png": lambda: 1 / 0, **drawings(given)}

    monkeypatch.setattr(trial_pictures, "_drawings", with_a_broken_one)
    with pytest.raises(ExceptionGroup) as caught:
        draw(found, tmp_path / "out")
    (only,) = caught.value.exceptions
    assert isinstance(only, ZeroDivisionError) and "while drawing broken.png" in only.__notes__
    assert (tmp_path / "out" / names.PICTURES_ARTIFACT / "equity_curve.png").is_file()
    assert (tmp_path / "out" / names.SYMBOLS_ARTIFACT).is_file()


def test_the_only_episode_is_drawn_once(episode: Episode, tmp_path: Path) -> None:
    one = episode([1.0] * 30)
    found = Material("r", None, {}, bars=one, best=one, worst=one.copy())
    draw(found, tmp_path)
    pictures = {path.name for path in (tmp_path / names.PICTURES_ARTIFACT).iterdir()}
    assert "trades_best_episode.png" in pictures and "trades_worst_episode.png" not in pictures


def test_hostile_text_is_drawn_as_text(episode: Episode, tmp_path: Path) -> None:
    frame = episode([1.0, -1.0] * 30, symbol=HOSTILE, window=HOSTILE, agent=HOSTILE)
    found = Material(HOSTILE, HOSTILE, {HOSTILE: pd.Series([1.0, 2.0], [1, 2])}, bars=frame, best=frame)
    assert draw(found, tmp_path) == {}


def test_a_trace_has_what_a_record_needs(episode: Episode) -> None:
    trace: Trace = trace_of(episode([1.0, 0.0, -1.0]))
    record = trace.record()
    assert record.length == 3 and record.labels["symbol"] == "GOOGL"
    assert record.conventions.periods_per_year == 252.0
