"""The mobile space: inverted residuals and their kin, planned for an input size."""
