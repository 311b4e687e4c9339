"""GET of a page: is it there, in time, with the status and the text that are expected?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from msgspec import field

from monitors.faults import Contradiction
from monitors.fetching import Fetched, Fetcher, secret_headers, tls_context, wrong_headers, wrong_url
from monitors.probe import Measured, ProbeSettings, Surroundings, Url


class WebSettings(ProbeSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What probes over HTTP have in common. ``headers_env`` and ``headers_file`` map a header to the variable or the
    file that holds its value; with such a header redirects are not followed. ``ca_file`` is trusted beside the system's
    own authorities."""

    url: Url
    headers: Mapping[str, str] = field(default_factory=dict)
    headers_env: Mapping[str, str] = field(default_factory=dict)
    headers_file: Mapping[str, str] = field(default_factory=dict)
    ca_file: str | None = None

    def contradictions(self) -> Iterator[Contradiction]:
        yield from wrong_url("url", self.url)
        yield from wrong_headers("headers", self.headers)

    def fetcher(self, surroundings: Surroundings) -> Fetcher:
        """Raises ``SettingsError`` for a secret or an authority that is not there."""
        secret = secret_headers(self.headers_env, self.headers_file, surroundings.environment)
        return Fetcher(
            self.url,
            {**self.headers, **secret},
            tls_context(self.ca_file),
            secret=bool(secret),
            timeout=self.timeout,
            monotonic=surroundings.monotonic,
            names=surroundings.names,
        )


class PageSettings(WebSettings, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="page"):
    """``[[probe]] kind = "page"``. ``status`` None: any of 200 to 299."""

    status: int | None = None
    text: str | None = None


class PageProbe:
    """Up when the page is what is expected, whole, within the timeout."""

    def __init__(self, settings: PageSettings, surroundings: Surroundings) -> None:
        self._settings = settings
        self._fetcher = settings.fetcher(surroundings)

    async def check(self) -> Measured:
        fetched = await self._fetcher.fetch()
        problem = fetched.problem or self._unexpected(fetched)
        event: dict[str, object] = {
            "type": "health.page_fetched",
            "up": problem is None,
            "bytes": len(fetched.body),
            "elapsed_ms": fetched.elapsed_ms,
        }
        if fetched.phases_ms:
            event["phases_ms"] = fetched.phases_ms
        if fetched.status is not None:
            event["status"] = fetched.status
        if fetched.certificate_days_left is not None:
            event["certificate_days_left"] = fetched.certificate_days_left
        if problem is not None:
            event["problem"] = problem
        return event

    def _unexpected(self, fetched: Fetched) -> str | None:
        settings, status = self._settings, fetched.status
        if status is None:
            return "no answer"
        if settings.status is None and not 200 <= status < 300:
            return f"status {status}"
        if settings.status is not None and status != settings.status:
            return f"status {status}, not {settings.status}"
        if settings.text is not None and settings.text.encode() not in fetched.body:
            return "the expected text is not in it"
        return None

    async def close(self) -> None:
        """Every fetch has closed what it opened."""
