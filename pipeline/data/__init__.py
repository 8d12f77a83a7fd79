"""Labelled images from the person's own source, split, subsampled and normalised; see ``loading.load``.

Nothing is imported here that reads images, since what was made of them is often there already.
"""

from pipeline.data.base import Dataset, Preprocessing, Split
from pipeline.data.config import DataConfig

__all__ = ["DataConfig", "Dataset", "Preprocessing", "Split"]
