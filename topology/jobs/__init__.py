"""Rollups of what extractors do."""
