"""Episodes: the record of one, statistics that merge exactly over many, and the KPIs they give.

Pure: numpy and the standard library only, so that an env runner may load it.
"""

from drl_ray_tracking.episodes.conventions import Conventions
from drl_ray_tracking.episodes.metric import EpisodeMetric
from drl_ray_tracking.episodes.record import EpisodeRecord, Trade
from drl_ray_tracking.episodes.summary import EpisodeSummary

__all__ = ["Conventions", "EpisodeMetric", "EpisodeRecord", "EpisodeSummary", "Trade"]
