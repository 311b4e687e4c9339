"""Rollups on InfluxDB."""
