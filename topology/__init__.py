"""The engine: log, batches, windows, rollups, checkpoints, sinks. Start reading at ``flow.py``."""
