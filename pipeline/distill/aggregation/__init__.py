"""The search for the mixtures of feature aggregation (DFA, 2008.00506); ``settings`` is free of torch."""
