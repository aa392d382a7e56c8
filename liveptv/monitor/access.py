"""Access control of the page: requests need its token, and must come from the page itself."""

from __future__ import annotations

import re
import secrets

from starlette.datastructures import Headers, QueryParams

LOCAL = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Connection": "close",
}


def new_token() -> str:
    """A random secret of 192 bits that can stand in a URL."""
    return secrets.token_urlsafe(24)


def why_refused(token: str, headers: Headers, query: QueryParams) -> str:
    """Why a request is refused, "" if it is allowed.

    The host must be a local name of this computer (a foreign name that resolves here is DNS rebinding), and the
    origin, where the browser sends one, must be this page.
    """
    host = headers.get("host", "").lower()
    if not LOCAL.fullmatch(host):
        return f"the host {host[:60]!r} is not this computer"
    origin = headers.get("origin")
    if origin is not None and origin.lower() != f"http://{host}":
        return f"the request comes from another site, {origin[:60]!r}"
    given = query.get("token", "")
    if not given:
        return "no token was given"
    if not secrets.compare_digest(given.encode(), token.encode()):
        return "the token is wrong"
    return ""
