"""Evaluators that look at members of a space with weights which all of them share, trained once."""
