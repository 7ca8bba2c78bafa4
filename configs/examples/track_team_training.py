"""Tracks a team's own training (`team_training.py`) without changing it, judges its agents, and compares them.

    python configs/examples/track_team_training.py

Runs go to `$MLFLOW_TRACKING_URI`, else to `mlflow.db` in the working directory.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import gym_anytrading.datasets
from rich.console import Console
from team_training import SplitDataSetContainer, TeamTrainingService

from drl_ray_tracking import EpisodeRecord, RecordEpisodes
from drl_ray_tracking.episodes import Conventions
from drl_ray_tracking.training import (
    ExperimentTrainingService,
    LiveRuns,
    SplitDataSet,
    TrainedAgent,
    TrainingOutcome,
    split_data_set,
)

RULES = Path(__file__).parents[1] / "rules.yaml"


class TeamAdapter:
    """The team's service behind the port: unpacks a data set, and runs each agent once over the validation bars."""

    def __init__(self, service: TeamTrainingService, folder: Path) -> None:
        self._service = service
        self._folder = folder

    def create_env_and_train_agents(
        self,
        datasets: Sequence[SplitDataSet],
        *,
        seeds: Sequence[int] = (1,),
        start_from: str | None = None,
        test: bool = False,
    ) -> TrainingOutcome:
        found = []
        for dataset in datasets:
            frames = (dataset.training, dataset.validation, dataset.test)
            container = SplitDataSetContainer(*(frame.rename(columns={"close": "Close"}) for frame in frames))
            for seed in seeds:
                environments, agents = self._service.create_env_and_train_agents(container, seed)
                for name, model in agents.items():
                    checkpoint = self._folder / f"{name}-{dataset.symbol}-s{seed}"
                    checkpoint.mkdir(parents=True, exist_ok=True)
                    model.save(checkpoint / "policy.npz")
                    found.append(
                        TrainedAgent(
                            name=f"{name}-{dataset.symbol}-s{seed}",
                            algorithm=type(model).__name__,
                            symbols=(dataset.symbol,),
                            seed=seed,
                            fold=dataset.fold,
                            params={
                                "learning_rate": model.learning_rate,
                                "total_timesteps": self._service.total_timesteps,
                            },
                            episodes={"validation": played(environments["validation"], model, dataset)},
                            checkpoint=str(checkpoint),
                        )
                    )
        return TrainingOutcome(agents=tuple(found))


def played(env, model, dataset: SplitDataSet) -> tuple[EpisodeRecord, ...]:
    """Returns the record of one deterministic pass over an environment."""
    recorded: list[EpisodeRecord] = []
    conventions = Conventions(periods_per_year=dataset.periods_per_year)
    env = RecordEpisodes(env, on_episode=recorded.append, conventions=conventions)
    observation, _ = env.reset()
    over = False
    while not over:
        observation, _, terminated, truncated, _ = env.step(model.predict(observation))
        over = terminated or truncated
    return tuple(recorded)


def google() -> SplitDataSetContainer:
    """Returns what the team has: frames."""
    frame = gym_anytrading.datasets.STOCKS_GOOGL
    return SplitDataSetContainer(frame.iloc[:1400], frame.iloc[1400:1850], frame.iloc[1850:])


def main() -> None:
    """Trains two agents with three seeds each and shows how they compare."""
    dataset = split_data_set(google(), symbol="GOOGL", timeframe="1d", periods_per_year=252.0)
    live = LiveRuns()
    team = TeamTrainingService(callback=live.callback, env_wrapper=live.wrap)
    service = ExperimentTrainingService(
        TeamAdapter(team, Path("team-agents")), experiment="team", rules=RULES, live=live
    )
    outcome = service.create_env_and_train_agents([dataset], seeds=(1, 2, 3))
    console = Console()
    console.print(outcome.to_frame()[["name", "eval/trading/sharpe", "eval/trading/max_drawdown"]])
    if service.comparison is not None:
        console.print(service.comparison.to_rich())


if __name__ == "__main__":
    main()
