"""Market data and the reference environment over it: price series, causal features, splits, segments, `TradingEnv`."""
