"""Rollups of for how long services were up."""
