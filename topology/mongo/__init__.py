"""Archive, dead letters and rows on MongoDB."""
