"""One candidate made real: trained, exported, compiled, verified."""
