"""The forwarders that are set, built from settings. Nothing is connected here."""

from __future__ import annotations

from collections.abc import Mapping

from agents.amplitude import URL as AMPLITUDE_URL
from agents.amplitude import Amplitude
from agents.google import URL as GOOGLE_URL
from agents.google import Google
from agents.webhook import Webhook
from cli.secret import SecretUrl
from cli.settings import Settings
from topology.forwarding.forwarder import Forwarding
from topology.forwarding.selection import Selection
from topology.forwarding.vendor import Vendor


def forwardings(settings: Settings) -> Mapping[str, Forwarding]:
    """By the name of the agent; empty where none is set."""
    found: dict[str, Forwarding] = {}
    if (amplitude := settings.amplitude) is not None:
        vendor: Vendor = Amplitude(amplitude.api_key.reveal(), _url(amplitude.url, AMPLITUDE_URL))
        found["amplitude"] = Forwarding(vendor=vendor, selection=Selection(amplitude.events))
    if (google := settings.google) is not None:
        vendor = Google(
            google.measurement_id,
            google.api_secret.reveal(),
            _url(google.url, GOOGLE_URL),
            validate=google.validate,
        )
        found["google"] = Forwarding(vendor=vendor, selection=Selection(google.events))
    if (webhook := settings.webhook) is not None:
        vendor = Webhook(webhook.url.reveal(), webhook.secret.reveal())
        found["webhook"] = Forwarding(vendor=vendor, selection=Selection(webhook.events))
    return found


def shown(settings: Settings) -> Mapping[str, Forwarding]:
    """Every forwarder, set or not, as it would send, without a secret in it: for looking at."""
    hidden = "***"
    amplitude, google, webhook = settings.amplitude, settings.google, settings.webhook
    where = "https://webhook.example/" if webhook is None else Webhook(webhook.url.reveal(), hidden).where
    return {
        "amplitude": Forwarding(
            vendor=Amplitude(
                hidden, AMPLITUDE_URL if amplitude is None else _url(amplitude.url, AMPLITUDE_URL)
            ),
            selection=Selection() if amplitude is None else Selection(amplitude.events),
        ),
        "google": Forwarding(
            vendor=Google("G-***", hidden, GOOGLE_URL)
            if google is None
            else Google(google.measurement_id, hidden, _url(google.url, GOOGLE_URL)),
            selection=Selection() if google is None else Selection(google.events),
        ),
        "webhook": Forwarding(
            vendor=Webhook(where, hidden),
            selection=Selection() if webhook is None else Selection(webhook.events),
        ),
    }


def _url(url: SecretUrl | None, default: str) -> str:
    return default if url is None else url.reveal()
