"""Which architectures are tried: candidates, their scores, the order of the best."""
