"""A run: stages in their order, from a recipe to a bundle."""

from pipeline.run.recipe_to_bundle import run, search
from pipeline.run.result import RunResult, SearchResult

__all__ = ["RunResult", "SearchResult", "run", "search"]
