"""The subgraphs of a teacher: networks that have its layers, some of them narrower, without some blocks."""
