"""Losses of distillation, one in each file; ``settings`` lists them and is free of torch."""
