"""Rollups: how they are declared, and what every kind of them is made of. Start reading at ``operators.py``."""
