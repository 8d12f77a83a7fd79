"""A target's latencies from few measurements there and the tables of other targets."""
