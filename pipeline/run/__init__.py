"""A run: stages in their order, from a recipe to a bundle."""

from pipeline.run.forecast import Forecast
from pipeline.run.recipe_to_bundle import foresee, run, search
from pipeline.run.result import RunResult, SearchResult

__all__ = ["Forecast", "RunResult", "SearchResult", "foresee", "run", "search"]
