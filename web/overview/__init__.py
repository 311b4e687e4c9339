"""``GET /v1/overview``: what the page shows, of one range, in one document.

shapes.py     the document
spans.py      ranges, and which window each is shown in
figures.py    what the rollups say of a range
present.py    what is so at this moment: agents, latest events, dead letters, readiness
snapshots.py  the document, made once for everybody who looks, and not too often
route.py      the route: once as JSON, or live as server-sent events
"""
