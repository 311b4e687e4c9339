"""`make bench`."""

from __future__ import annotations

from bench import embedded

embedded.main(100_000)
