"""What gives a candidate its score, and where that runs."""
