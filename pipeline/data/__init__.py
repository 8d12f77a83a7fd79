"""Labelled images from the person's own source, split, subsampled and normalised; see ``load``."""

from pipeline.data.base import Dataset, Preprocessing, Split
from pipeline.data.config import DataConfig
from pipeline.data.loading import load

__all__ = ["DataConfig", "Dataset", "Preprocessing", "Split", "load"]
