"""Manual research, tracked as trials are: an idea tried by hand, in a script or a notebook cell by cell.

    python configs/examples/manual_research.py

Runs go to `$MLFLOW_TRACKING_URI`, else to `mlflow.db` in the working directory. Kill it in the middle and start it
again: every run goes on where it was. No server has to be reachable; what waits is delivered later.
"""

from __future__ import annotations

import matplotlib.pyplot as plt
from rich.console import Console

from drl_ray_tracking import ExperimentService, RecordEpisodes, compare, load_runs
from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.markets.data import load_prices
from drl_ray_tracking.markets.datasets import market_segment
from drl_ray_tracking.markets.splits import chronological_split
from drl_ray_tracking.training import Rules, TradingEnv, judge_episodes, log_series

EXPERIMENT = "manual-research"
SPANS = (5, 20, 60)  # bars of the moving average: the idea that is tried


def main() -> None:
    """Tries a rule of thumb, "long above its moving average", with several averages."""
    dataset = chronological_split(load_prices("gym_anytrading:GOOGL"))
    segment = market_segment(dataset, "validation")
    with ExperimentService(experiment_name=EXPERIMENT, session="moving-averages") as service:
        for span in SPANS:
            name = f"above-average-{span}"
            try:
                run = service.start_run(resume=name)  # killed, or run before: goes on with it
            except ConfigurationError:
                run = service.start_run(name, params={"span": span, "fee": 0.0005})
            with run:
                if run.resumed_step:
                    continue
                env = RecordEpisodes(
                    TradingEnv({"segments": [segment], "start": "enumerate", "positions": [0, 1], "fee": 0.0005}),
                    on_episode=lambda record, run=run: run.log_episode(record, step=len(segment), split="eval"),
                )
                trade(env, segment.price, span)
                record = env.last_record
                log_series(run, [record], step=len(segment))  # every bar: pictures and verdicts are made of them
                figure, axes = plt.subplots()
                axes.plot(record.equity)
                run.log_figure(figure, "pictures/equity.png")
                plt.close(figure)
                ruling = judge_episodes(Rules(max_drawdown=0.2, max_daily_loss=0.05), [record])
                run.set_tags(ruling.tags())
                run.log_metrics(ruling.metrics(), step=len(segment))
                run.note(
                    f"A span of {span} bars: {'kept the rules' if ruling.passed else 'broke ' + str(ruling.broken)}"
                )
    runs = load_runs(service.tracking_uri, EXPERIMENT)
    Console().print(compare(runs, metric="eval/trading/sharpe").to_rich())


def trade(env: RecordEpisodes, prices, span: int) -> None:
    """Steps through one episode: long while the last close is above the average of the last `span`, else flat."""
    env.reset()
    bar, over = 0, False
    while not over:
        above = prices[bar] > prices[max(0, bar - span + 1) : bar + 1].mean()
        _, _, terminated, truncated, _ = env.step(int(above))
        bar += 1
        over = terminated or truncated


if __name__ == "__main__":
    main()
