"""The certificate that the web application shows."""

from __future__ import annotations

import ssl

import click

from cli.settings import TlsSettings
from topology.errors import SettingsError


def context_for_command(settings: TlsSettings | None) -> ssl.SSLContext | None:
    """The context of a command that listens; None where it speaks plain HTTP. Files that cannot be used are wrong use
    (``click.UsageError``, 2), found before anything is opened."""
    if settings is None:
        return None
    try:
        return context_of(settings)
    except SettingsError as error:
        raise click.UsageError(str(error)) from None


def context_of(settings: TlsSettings) -> ssl.SSLContext:
    """TLS 1.2 and later with this certificate. Raises ``SettingsError``. Blocks: it reads the two files."""
    for name, file in (("EVENTSINK_TLS_CERT", settings.cert), ("EVENTSINK_TLS_KEY", settings.key)):
        try:
            file.open("rb").close()
        except OSError as error:
            raise SettingsError(f"{name} {file} cannot be read ({error.strerror}): mend it") from None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # Without this, a password would be asked for on the terminal, which a service does not have.
        context.load_cert_chain(settings.cert, settings.key, password=_no_password)
    except ssl.SSLError as error:
        reason = (error.reason or "not PEM").replace("_", " ").lower()
        raise SettingsError(
            f"EVENTSINK_TLS_CERT {settings.cert} and EVENTSINK_TLS_KEY {settings.key} are no certificate chain "
            f"with its key ({reason}): both are PEM files, the server's own certificate first"
        ) from None
    return context


def _no_password() -> str:
    raise SettingsError("EVENTSINK_TLS_KEY has a password: take it off (openssl pkey -in OLD -out NEW)")
