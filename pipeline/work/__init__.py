"""The work folder: stages, and their results found again by content."""
