"""Examples of the OpenAPI document. Tests send every one of them."""

from __future__ import annotations

from collections.abc import Mapping

_UPLOAD = {
    "type": "storage.file_uploaded",
    "time": "2026-11-24T12:00:00Z",
    "id": "upload-1",
    "source": "clowder.example.org",
    "user_id": "u1",
    "file_id": "f1",
    "space_id": "s1",
    "bytes": 1024,
}
_PING = {
    "type": "health.pinged",
    "service": "clowder",
    "region": "eu",
    "up": True,
    "response_ms": {"min": 11.2, "avg": 12.5, "max": 14.0},
}
_CLOWDER = {
    "category": "view_resource",
    "type": "dataset",
    "resource_id": "603e2b10e4b0c9ed9ca11133",
    "resource_name": "Soil samples",
    "author_id": "603e2b10e4b0c9ed9ca11100",
    "author_name": "A. Author",
    "user_id": "000000000000000000000000",
    "user_name": "Anonymous User",
    "created": 1617629502000,
}

EVENTS: Mapping[str, object] = {"one": _UPLOAD, "several": [_UPLOAD, _PING], "Clowder 1, as it is": _CLOWDER}
LINES: Mapping[str, object] = {
    "lines": '{"type":"activity.logged_in","user_id":"u1"}\n'
    '{"type":"health.pinged","service":"clowder","region":"eu","up":false}\n'
}

_CLOUDEVENT = {
    "specversion": "1.0",
    "id": "upload-1",
    "source": "clowder.example.org",
    "type": "storage.file_uploaded",
    "time": "2026-11-24T12:00:00Z",
    "data": {"file_id": "f1", "space_id": "s1", "bytes": 1024},
}
CLOUDEVENT: Mapping[str, object] = {"structured": _CLOUDEVENT}
CLOUDEVENTS: Mapping[str, object] = {"batch": [_CLOUDEVENT]}

ACCEPTED: Mapping[str, object] = {
    "all": {"accepted": 2, "rejected": [], "durable": "broker"},
    "not all": {
        "accepted": 1,
        "rejected": [{"index": 1, "pointer": "/bytes", "error": "must be an integer"}],
        "durable": "spool",
    },
}

SERVICE: Mapping[str, object] = {
    "ping": {
        "ping_status": {
            "healthy": True,
            "response_time": {"min": "0.045 ms", "avg": "0.045 ms", "max": "0.045 ms", "loss": "0%"},
            "uptime": 0.9993,
        }
    },
    "homepage": {"homepage_status": {"success": True, "bytes": 18234}},
    "measurement": {
        "measurement": "ping",
        "tags": {"server": "clowder"},
        "values": {"status": 0, "packets": 5, "unit": "ms", "min": 0.4, "avg": 0.5, "max": 0.7, "loss": 0},
    },
}
