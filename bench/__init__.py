"""Measurements, each against what a user would otherwise use or against a stated limit. `make bench` runs them."""
