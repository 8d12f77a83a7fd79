"""Sources of the inference scripts that go into bundles."""
