"""A space's latency table on a target, and the network model over it: what is measured, and the fit."""
