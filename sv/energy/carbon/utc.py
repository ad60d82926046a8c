"""Moments of UTC as text, the way that journals, sidecars and carbon providers write them."""

from datetime import UTC, datetime


def format_utc(unix_s: float) -> str:
    """Format ``2026-11-22T10:15:00Z``, with milliseconds where there are any."""
    moment = datetime.fromtimestamp(unix_s, UTC)
    spec = "milliseconds" if round(unix_s % 1, 3) else "seconds"
    return moment.isoformat(timespec=spec).replace("+00:00", "Z")


def parse_utc(text: str) -> float:
    """Give the Unix time of a moment; one without a zone is UTC.

    Raises:
        ValueError: It is no date and time of ISO 8601.
    """
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
