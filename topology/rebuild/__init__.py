"""Windows computed anew from the archive. Start reading at ``rebuilding.py``."""
