"""The emergency ingest, queries and the page. Start reading at ``application.py``."""
