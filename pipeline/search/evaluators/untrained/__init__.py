"""Evaluators that look at untrained networks: less than a second for each, and numbers that only rank."""
