"""Estimates against fresh measurements of networks that they were not made from."""
