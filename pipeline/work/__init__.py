"""The work folder: results of stages, found again by content."""
