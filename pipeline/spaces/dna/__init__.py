"""The space of DNA: blocks aligned with a teacher's."""
