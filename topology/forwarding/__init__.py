"""Forwarding: the events of a group to a vendor over HTTP. What a vendor is: ``vendor.py``; how it goes: ``forwarder.py``."""
