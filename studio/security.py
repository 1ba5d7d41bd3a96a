"""Who may ask: one person's browser on this machine, who has opened the printed address."""

import hmac
import os
import secrets
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; "
    "base-uri 'none'; frame-ancestors 'none'; form-action 'self'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
READS, WRITES = ("GET", "HEAD"), ("PUT", "POST", "DELETE")
MAX_PHOTO = 20 * 2**20  # bytes


def read_token(path: Path) -> str:
    """The session's token of 256 bits, in a file that only its owner reads.

    It outlives the server, so that an open tab goes on after a restart.
    """
    if not path.exists():
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(file, "w") as opened:
            opened.write(secrets.token_urlsafe(32))
    return path.read_text()


def refusal(status: int, got: str, wanted: str, remedy: str, **more: object) -> JSONResponse:
    """An error as JSON."""
    error = {"got": got, "wanted": wanted, "remedy": remedy}
    return JSONResponse({"error": error} | more, status)


class Guard:
    """Middleware: what API.md rules for every request, before any route sees it."""

    def __init__(self, app: ASGIApp, host: str, token: str, limits: dict[str, int]):
        self.app, self.host, self.token = app, host, token
        self.limits = limits  # {prefix of a path: bytes of a body}
        self.cookie = f"studio-{host.rpartition(':')[2]}"  # hosts share cookies between ports

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        asked = self._check(scope["method"], scope["path"], Headers(scope=scope), scope)
        await (asked or self.app)(scope, receive, answer)

    def _check(self, method: str, path: str, headers: Headers, scope: Scope) -> Response | None:
        """What a request is refused with, or sent elsewhere; None: a route answers."""
        if headers.getlist("host") != [self.host]:
            return refusal(403, "another Host", self.host, "open the printed address")
        theirs = headers.get("origin", f"http://{self.host}")
        site = headers.get("sec-fetch-site", "none")
        if theirs != f"http://{self.host}" or site not in ("same-origin", "none"):
            return refusal(403, "a request from another page", "this page's own", "close that page")
        if method not in (*READS, *WRITES):
            return refusal(405, f"method {method:.20}", ", ".join((*READS, *WRITES)), "see API.md")
        if path == "/" and "token" in (query := parse_qs(scope["query_string"].decode("latin-1"))):
            return self._enter(query["token"][0])
        if not self._same(self._sent(headers)):
            return refusal(401, "no token", "the one of the printed address", "open that address")
        if method in WRITES and headers.get("x-studio") != "1":
            return refusal(403, "a write without X-Studio", "X-Studio: 1", "use the page")
        return self._too_much(path, headers) if method in ("PUT", "POST") else None

    def _enter(self, token: str) -> Response:
        if not self._same(token):
            return refusal(401, "another token", "the one of the printed address", "open that one")
        answer = RedirectResponse("/", 303)
        answer.set_cookie(self.cookie, self.token, path="/", httponly=True, samesite="strict")
        return answer

    def _same(self, token: str) -> bool:
        return hmac.compare_digest(token.encode(), self.token.encode())

    def _sent(self, headers: Headers) -> str:
        try:
            cookies = SimpleCookie(headers.get("cookie", ""))
        except CookieError:
            return ""
        return cookies[self.cookie].value if self.cookie in cookies else ""

    def _too_much(self, path: str, headers: Headers) -> Response | None:
        length = headers.get("content-length", "")
        if not length.isdecimal() or "transfer-encoding" in headers:
            return refusal(411, "a body of unknown length", "Content-Length", "send it")
        limit = max((n for start, n in self.limits.items() if path.startswith(start)), default=0)
        if int(length[:20]) > limit:
            return refusal(413, f"a body of {length[:20]} bytes", f"at most {limit}", "send less")
        return None
