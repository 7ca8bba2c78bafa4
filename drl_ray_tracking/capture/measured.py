"""Measured: what is sent of one finished episode - its summary, and its agents' where it has several.

In a result, KPIs of the whole episode stand at the top (`episode/...`, `trading/...`); those of a
multi-agent episode's agents stand under `module/<id>/...`, pooled over the agents of a module, and under
`agent/<id>/...`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from drl_ray_tracking import names
from drl_ray_tracking.capture.actions import UNCHANGED, SentActions
from drl_ray_tracking.capture.environment import NOWHERE, Environment
from drl_ray_tracking.capture.records import OnError, record_of, whole_of
from drl_ray_tracking.capture.sources import KeyMap, TradingSource, WhereTraded
from drl_ray_tracking.capture.steps import EpisodeSteps, agent_steps_of, is_multi_agent, steps_of
from drl_ray_tracking.episodes import Conventions, EpisodeMetric, EpisodeRecord, EpisodeSummary
from drl_ray_tracking.episodes.summary import merge_all

MAX_AGENTS: Final = 32


@dataclass(frozen=True)
class AgentSummary:
    """What one agent did in a multi-agent episode."""

    agent: str
    module: str
    summary: EpisodeSummary


@dataclass(frozen=True)
class Measured:
    """An episode's summary and the market window it ran over ('' where the environment names none).

    `source` says where its trading columns came from ('' where it does not trade).
    """

    summary: EpisodeSummary
    window: str
    agents: tuple[AgentSummary, ...] = ()
    source: str = ""

    @property
    def order(self) -> tuple[str, bytes, tuple[bytes, ...]]:
        """Sorts episodes by content alone, whatever order they arrive in."""
        return (self.window, self.summary.order_key, tuple(agent.summary.order_key for agent in self.agents))

    @property
    def key(self) -> str:
        """What its series is found by."""
        window, whole, agents = self.order
        return f"{window}#{whole.hex()}{b''.join(agents).hex()}"


@dataclass(frozen=True)
class Measurement:
    """How episodes are measured; travels to every env runner inside the algorithm's configuration."""

    source: TradingSource = field(default_factory=WhereTraded)
    metrics: tuple[EpisodeMetric[Any], ...] = ()
    conventions: Conventions | None = None

    @property
    def reads_environment(self) -> bool:
        """Whether the source may look at an episode's environment; ours of info keys alone do not."""
        return not isinstance(self.source, (KeyMap, WhereTraded))

    def record(self, steps: EpisodeSteps, on_error: OnError) -> EpisodeRecord:
        """Returns the record of one agent's steps."""
        return record_of(steps, self.source, self.conventions, on_error)

    def summary(self, record: EpisodeRecord) -> EpisodeSummary:
        """Returns the summary of one record, the user's metrics included."""
        return EpisodeSummary.of(record, metrics=self.metrics)

    def of(
        self,
        chunks: Sequence[Any],
        on_error: OnError,
        environment: Environment = NOWHERE,
        sent: SentActions = UNCHANGED,
    ) -> tuple[Measured, list[tuple[EpisodeRecord, EpisodeSteps]]]:
        """Measures one RLlib episode, given as `[*prev_episode_chunks, episode]`.

        Returns:
            What to send, and the record and steps of each agent (of the only one, in a single-agent episode).
        """
        if not is_multi_agent(chunks[-1]):
            steps = steps_of(chunks, environment, sent)
            record = self.record(steps, on_error)
            source = record.labels.get(names.TRADING_SOURCE, "")
            return Measured(self.summary(record), window_of(steps), source=source), [(record, steps)]
        parts = [(self.record(steps, on_error), steps) for steps in agent_steps_of(chunks, environment, sent)]
        whole = whole_of(
            [record for record, _ in parts],
            length=sum(len(chunk) for chunk in chunks),
            terminated=bool(chunks[-1].is_terminated),
            truncated=bool(chunks[-1].is_truncated),
        )
        agents = tuple(
            AgentSummary(record.labels["agent"], record.labels["module"], self.summary(record)) for record, _ in parts
        )
        windows = (window_of(steps) for _, steps in parts)
        sources = (record.labels.get(names.TRADING_SOURCE, "") for record, _ in parts)
        window, source = next(filter(None, windows), ""), next(filter(None, sources), "")
        return Measured(self.summary(whole), window, agents, source), parts


def window_of(steps: EpisodeSteps) -> str:
    """Returns the key of the market window an episode ran over, or '' where the env does not say."""
    last = steps.last_info
    if str(last.get("window", "")) in ("", "None", "random"):
        return ""
    return "|".join(str(last.get(part, "")) for part in ("symbol", "split", "fold", "window"))


def kpis(measured: Sequence[Measured]) -> Iterator[tuple[str, float]]:
    """Yields all KPIs of some episodes under their paths in a result.

    Modules and agents beyond 32 each are left out, in the order of their ids, and counted.
    """
    yield from _grouped(merge_all([item.summary for item in measured]))
    agents = [agent for item in measured for agent in item.agents]
    for kind in ("module", "agent"):
        by_id: dict[str, list[EpisodeSummary]] = {}
        for agent in agents:
            by_id.setdefault(getattr(agent, kind), []).append(agent.summary)
        for name in sorted(by_id)[:MAX_AGENTS]:
            for path, value in _grouped(merge_all(by_id[name])):
                yield f"{kind}/{name.replace('/', '-')}/{path}", value
        if len(by_id) > MAX_AGENTS:
            yield f"undefined/{kind}/overflow", float(len(by_id) - MAX_AGENTS)


def _grouped(summary: EpisodeSummary) -> Iterator[tuple[str, float]]:
    """A user's own KPIs go under `user/` unless they chose one of our groups."""
    for path, value in summary.compute().items():
        known = path.split("/", 1)[0] in names.CAPTURED_GROUPS
        yield (path if known else f"{names.USER_GROUP}/{path}"), value
