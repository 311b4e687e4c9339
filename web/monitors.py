"""``POST /service``: the three bodies of the existing health monitors, read as canonical ``health.*`` events.

    {"ping_status": {"healthy", "response_time": {"min", "avg", "max", "loss"}, …}}         health.pinged
    {"homepage_status": {"success", "bytes"}}                                                health.page_fetched
    {"measurement": "ping", "healthz", "homepage" or "download", "tags": {…}, "values": {…}} either

They say neither when nor from where: a result is placed at its arrival, in the region ``unknown``. They watch
``clowder``, unless a ping's tag ``server`` names what it reached. Of the tags only those are kept that are known:
monitors were seen to send their own request headers as tags, keys included.

Up or down is worth keeping whatever else a result says: a time, a loss or a size that cannot be read is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from schemas.events import MAX_COUNT, Event, PageFetched, Pinged, ResponseTimes
from schemas.quantities import milliseconds, share
from schemas.reading import Refusal
from schemas.refusals import refusal
from web.items import Item, fitted, read_item

SERVICE = "clowder"
REGION = "unknown"

#: Of a tag, this much is taken.
_MAX_CHARACTERS = 256
_TOLD = {"true": True, "1": True, "false": False, "0": False}


class PingStatus(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """``uptime`` comes with it and means nothing."""

    healthy: bool | int | str
    response_time: Any = None


class HomepageStatus(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """``bytes`` is −1 of a page that was not to be had."""

    success: bool | int | str
    bytes: Any = None


class Measurement(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Tags and values as they were once written into InfluxDB."""

    measurement: Literal["ping", "healthz", "homepage", "download"]
    tags: dict[str, Any] | None = None
    values: dict[str, Any]


class Report(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The first two bodies; both at once are two events."""

    ping_status: PingStatus | None = None
    homepage_status: HomepageStatus | None = None


Body = Annotated[Report | Measurement, Meta(description="A result of one of the existing health monitors.")]

_encode = msgspec.json.Encoder().encode


def read_report(body: bytes) -> list[Item]:
    """The events of one body, at least one or a refusal. Raises nothing."""
    fitting = fitted(body)
    if isinstance(fitting, Refusal):
        return [fitting]
    try:
        value = msgspec.json.decode(fitting)
        if not isinstance(value, dict):
            return [Refusal("", "must be an object")]
        if "measurement" in value:
            return [_measured(msgspec.convert(value, Measurement))]
        report = msgspec.convert(value, Report)
    except msgspec.ValidationError as error:
        return [refusal(error)]
    except RecursionError:
        return [Refusal("", "nested too deeply")]
    except ValueError as error:
        return [Refusal("", f"not JSON: {str(error).removeprefix('JSON is malformed: ').lower()}")]
    found: list[Item] = []
    if report.ping_status is not None:
        found.append(_taken(_ping_status(report.ping_status)))
    if report.homepage_status is not None:
        found.append(_taken(_homepage_status(report.homepage_status)))
    return found or [Refusal("", "must have ping_status, homepage_status or measurement")]


def _taken(event: Event | Refusal, asset: str | None = None) -> Item:
    if isinstance(event, Refusal):
        return event
    line = _encode(event)
    return read_item(line if asset is None else _encode({**msgspec.to_builtins(event), "asset": asset}))


# -- the bodies --


def _ping_status(status: PingStatus) -> Event | Refusal:
    up = _told(status.healthy)
    if up is None:
        return Refusal("/ping_status/healthy", "must be true or false")
    times = status.response_time if isinstance(status.response_time, dict) else {}
    return _pinged(up, "ping", times)


def _homepage_status(status: HomepageStatus) -> Event | Refusal:
    up = _told(status.success)
    if up is None:
        return Refusal("/homepage_status/success", "must be true or false")
    return PageFetched(service=SERVICE, region=REGION, up=up, bytes=_size(status.bytes))


def _measured(body: Measurement) -> Item:
    tags = body.tags or {}
    return _taken(_MEASUREMENTS[body.measurement](tags, body.values), _tag(tags, "asset"))


def _ping(tags: Mapping[str, Any], values: Mapping[str, Any]) -> Event | Refusal:
    """``status`` is what the program ended with, which is right on every system; the output is parsed for one ping."""
    status, loss = values.get("status"), share(_measurable(values.get("loss")))
    if isinstance(status, int):
        up = status == 0 and loss != 1
    elif loss is not None:
        up = loss < 1
    else:
        return Refusal("/values/status", "is required where there is no loss")
    unit = values.get("unit")
    return _pinged(up, "ping", values, unit=unit if isinstance(unit, str) else "", service=_service(tags))


def _healthz(tags: Mapping[str, Any], values: Mapping[str, Any]) -> Event | Refusal:
    up = _told(values.get("healthy"))
    if up is None:
        return Refusal("/values/healthy", "must be 1 or 0")
    return Pinged(service=_service(tags), region=REGION, up=up, check="healthz")


def _fetched(tags: Mapping[str, Any], values: Mapping[str, Any]) -> Event | Refusal:
    """Nothing, or −1 bytes, is what a failed download left behind."""
    size = values.get("bytes")
    if isinstance(size, bool) or not isinstance(size, int | float):
        return Refusal("/values/bytes", "must be a number")
    up = size > 0
    return PageFetched(
        service=SERVICE,
        region=REGION,
        up=up,
        bytes=_size(size) if up else None,
        elapsed_ms=milliseconds(_measurable(values.get("time")), "s"),
    )


_MEASUREMENTS: Mapping[str, Callable[[Mapping[str, Any], Mapping[str, Any]], Event | Refusal]] = {
    "ping": _ping,
    "healthz": _healthz,
    "homepage": _fetched,
    "download": _fetched,
}


def _pinged(
    up: bool, check: Literal["ping"], times: Mapping[str, Any], *, unit: str = "", service: str = SERVICE
) -> Pinged:
    read = {name: milliseconds(_measurable(times.get(name)), unit) for name in ("min", "avg", "max")}
    response = ResponseTimes(**read)
    return Pinged(
        service=service,
        region=REGION,
        up=up,
        check=check,
        response_ms=None if response == ResponseTimes() else response,
        loss=share(_measurable(times.get("loss"))),
    )


def _service(tags: Mapping[str, Any]) -> str:
    return _tag(tags, "server") or SERVICE


def _tag(tags: Mapping[str, Any], name: str) -> str | None:
    value = tags.get(name)
    return value[:_MAX_CHARACTERS] if isinstance(value, str) and value else None


def _told(value: object) -> bool | None:
    return _TOLD.get(str(value).lower())


def _measurable(value: object) -> float | str | None:
    return value if isinstance(value, int | float | str) and not isinstance(value, bool) else None


def _size(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_COUNT:
        return None
    return int(value)
