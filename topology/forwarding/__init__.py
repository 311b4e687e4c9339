"""Forwarding the events of a group to a vendor. What a vendor is: ``vendor.py``; how it goes: ``forwarder.py``."""
