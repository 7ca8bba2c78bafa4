"""The main job: configuration, market data, the reference environment, and the sweep that trains on it."""

from drl_ray_tracking.training.datasets import MarketSegment, SplitDataSet
from drl_ray_tracking.training.env import TradingEnv

__all__ = ["MarketSegment", "SplitDataSet", "TradingEnv"]
