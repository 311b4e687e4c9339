"""What an event is: the tagged union, the readers of foreign shapes, the published schemas.

Start at ``reading.py``.
"""
