"""The recipe: everything a run is asked to do."""
