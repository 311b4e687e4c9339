"""A group of agents: one reading of the log, its rows, checkpoints and deliveries. Start reading at ``groups.py``."""
