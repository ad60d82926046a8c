"""Ask a web service one question and read its answer as JSON.

Used by the carbon providers, CEEMS and Redfish. Nothing of a failed answer is repeated in an error:
a service may send back the token that it was sent. No redirection is followed, for the token would
go with it. What is sent in headers goes by https, or stays on this machine.
"""

import http.client
import json
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

from sv.errors import SvError

TIMEOUT_S = 30.0
_OWN_MACHINE = re.compile(r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?(/.*)?")
MAX_BYTES = 16_000_000  # a year of quarter hours is 2 MB; a wrong address may answer without end


class FetchError(SvError):
    """A service gave no usable answer; the message says why, without an address or a secret."""


def is_private(url: str) -> bool:
    """Return whether what is sent cannot be read on its way: by https, or on this machine."""
    return url.startswith("https://") or _OWN_MACHINE.fullmatch(url) is not None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_args: Any) -> None:
        return None


def fetch_json(
    url: str,
    query: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    secrets: Mapping[str, str] | None = None,
    timeout_s: float = TIMEOUT_S,
    use_proxy: bool = True,
    verify_tls: bool = True,
) -> Any:
    """Send a GET and return the parsed body of the answer.

    Args:
        url: Address without a query.
        query: Names and values, not yet escaped.
        headers: What else is sent.
        secrets: Headers that hold a secret, which goes here and nowhere else.
        timeout_s: For the connection and for each part of the answer.
        use_proxy: Whether the proxies of the environment are used.
        verify_tls: Whether the server's certificate is checked.

    Raises:
        FetchError: No connection, a status other than 200, or no JSON; or a secret would be sent
            in clear.
    """
    if secrets and not is_private(url):
        raise FetchError("the address must begin with https: a secret goes with the question")
    headers = {**(headers or {}), **(secrets or {})}
    for value in headers.values():
        # http.client would show the value in its own message.
        if not (value.isascii() and value.isprintable()):
            raise FetchError("a header to send (token, user) has characters that none may have")
    request = urllib.request.Request(
        f"{url}?{urlencode(query)}" if query else url,
        headers={"Accept": "application/json", **headers},
    )
    handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
    if not use_proxy or _OWN_MACHINE.fullmatch(url):
        handlers.append(urllib.request.ProxyHandler({}))
    if not verify_tls:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        handlers.append(urllib.request.HTTPSHandler(context=context))
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=timeout_s) as answer:
            if answer.status != HTTPStatus.OK:
                raise FetchError(_describe_status(answer.status))
            body = answer.read(MAX_BYTES + 1)
    except urllib.error.HTTPError as error:
        with error:
            raise FetchError(_describe_status(error.code)) from None
    except urllib.error.URLError as error:
        raise FetchError(_describe_failure(error.reason)) from None
    except (OSError, http.client.HTTPException) as error:
        raise FetchError(_describe_failure(error)) from None
    if len(body) > MAX_BYTES:
        raise FetchError(f"the answer is longer than {MAX_BYTES} bytes")
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise FetchError("the answer is not JSON") from None


def _describe_status(status: int) -> str:
    name = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "unknown"
    moved = ": it has moved, and is not followed" if 300 <= status < 400 else ""  # noqa: PLR2004
    return f"HTTP {status} {name}{moved}"


def _describe_failure(reason: object) -> str:
    if isinstance(reason, TimeoutError):
        return "no answer in time"
    if isinstance(reason, OSError) and reason.strerror:
        return f"no connection ({reason.strerror})"
    return f"no connection ({type(reason).__name__})"
