"""Health monitors: probes that run anywhere, need neither Clowder nor a broker, and post to the emergency ingest."""
