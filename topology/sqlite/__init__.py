"""Everything embedded: log, rows, rollups, archive, in one SQLite file. Start reading at ``file.py``."""
