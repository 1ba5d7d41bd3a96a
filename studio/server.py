"""The session on HTTP, as API.md says. No torch: the lanes compute."""

import asyncio
import errno
import hashlib
import json
import socket
import webbrowser
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from pipeline.runtime.errors import InputError
from studio.jobs import error_facts
from studio.place import Place
from studio.refusals import Cancelled, Conflict, DiskFull, Missing, Restarting
from studio.requests import read_job, read_mask, read_number
from studio.security import MAX_PHOTO, Guard, read_token, refusal
from studio.session import Session

STATIC = Path(__file__).parent / "static"
TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".jpg": "image/jpeg",
    ".js": "text/javascript",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
}
BYTES = "application/octet-stream"
STATUS = {Missing: 404, Conflict: 409, Restarting: 503, DiskFull: 507, InputError: 422}
BEAT = 15.0  # seconds between signs of life of an event stream


class Server:
    """The routes of one session."""

    def __init__(self, session: Session):
        self.session = session

    def app(self, host: str, token: str) -> Guard:
        """The application, guarded."""
        size = self.session.pool.size
        routes = [
            Route("/", self.index),
            Route("/static/{name}", self.static),
            Route("/api/session", self.state),
            Route("/api/samples/{name}/{look}", self.sample),
            Route("/api/annotations/{row}", self.annotation, methods=["GET", "PUT", "DELETE"]),
            Route("/api/jobs", self.post_job, methods=["POST"]),
            Route("/api/jobs/{id}", self.job, methods=["GET", "DELETE"]),
            Route("/api/jobs/{id}/frame.jpg", self.frame),
            Route("/api/edits/{id}/{name}", self.file),
            Route("/api/events", self.events),
        ]
        handlers: Any = {InputError: _refuse, OSError: _refuse_disk, Cancelled: _refuse_cancelled}
        handlers |= {404: _refuse_path, 405: _refuse_path}
        limits = {
            "/api/annotations/": size * size,
            "/api/jobs": 2 * size * size + 4096,
            "/api/photos": MAX_PHOTO,
        }
        return Guard(Starlette(routes=routes, exception_handlers=handlers), host, token, limits)

    async def index(self, request: Request) -> Response:
        """The page."""
        return _file(STATIC, "index.html")

    async def static(self, request: Request) -> Response:
        """A file of the page."""
        return _file(STATIC, request.path_params["name"])

    async def state(self, request: Request) -> Response:
        """All that a page needs to begin."""
        return JSONResponse(await run_in_threadpool(self.session.state))

    async def sample(self, request: Request) -> Response:
        """A picture or the mask of a sample."""
        kinds = {"image.jpg": "image", "preview.jpg": "preview", "mask": "mask"}
        name, query = request.path_params["look"], request.query_params
        if name not in kinds:
            raise Missing(f"{name!r:.40} of a sample", ", ".join(kinds), "name one of these")
        edit = query.get("edit")
        future, version = self.session.look(
            request.path_params["name"],
            kinds[name],
            None if edit is None else _number(edit, "edit"),
            read_number(query.get("strength", "1"), "strength", float, -1, 2),
        )
        data = await asyncio.shield(asyncio.wrap_future(future))
        headers = {"X-Extractor": str(version)} if name == "mask" else {}
        return _bytes(request, data, BYTES if name == "mask" else TYPES[".jpg"], headers)

    async def annotation(self, request: Request) -> Response:
        """What is drawn on a row."""
        row, session = _number(request.path_params["row"], "row"), self.session
        if request.method in ("GET", "HEAD"):
            mask, revision = session.annotation(row)
            return _bytes(request, mask.tobytes(), BYTES, {"ETag": f'"{revision}"'})
        expected = request.headers.get("if-match", "").strip('"')
        if not expected:
            return refusal(428, "no If-Match", "the revision that you have", "send it")
        if request.method == "DELETE":
            found = await run_in_threadpool(session.erase, row, expected)
        else:
            mask = read_mask(await request.body(), session.pool.size)
            found = await run_in_threadpool(session.draw, row, mask, expected)
        return JSONResponse(found, headers={"ETag": f'"{found["revision"]}"'})

    async def post_job(self, request: Request) -> Response:
        """Begin a job."""
        try:
            body = json.loads(await request.body())
        except (ValueError, RecursionError) as error:
            raise InputError("a body that is not JSON", "a JSON object", "see API.md") from error
        kind, arguments = read_job(body, self.session.pool.size)
        job = await run_in_threadpool(getattr(self.session, kind), **arguments)
        return JSONResponse({"id": job.id}, 202)

    async def job(self, request: Request) -> Response:
        """A job, or its end."""
        number = _number(request.path_params["id"], "job")
        if request.method == "DELETE":
            await run_in_threadpool(self.session.cancel, number)
            return JSONResponse({}, 202)
        return JSONResponse(self.session.jobs.show(number))

    async def frame(self, request: Request) -> Response:
        """The latest frame of a job that runs."""
        data = self.session.jobs.frame(_number(request.path_params["id"], "job"))
        return _bytes(request, data, TYPES[".jpg"])

    async def file(self, request: Request) -> Response:
        """A file of a finished job."""
        number, name = _number(request.path_params["id"], "job"), request.path_params["name"]
        result = self.session.jobs.get(number).result or {}
        if name not in result.get("files", ()):
            raise Missing(f"file {name!r:.40} of job {number}", "one of its files", "name another")
        return _file(self.session.place.results(number), name)

    async def events(self, request: Request) -> Response:
        """What happens, as it happens."""
        after = request.headers.get("last-event-id") or request.query_params.get("after")
        return StreamingResponse(self._stream(after), media_type="text/event-stream")

    async def _stream(self, after: str | None) -> AsyncIterator[str]:
        yield ": studio\n\n"
        async for event in self.session.events.follow(after, BEAT):
            if event is None:
                yield ": still here\n\n"
            else:
                number, data = self.session.events.id(event.number), json.dumps(event.data)
                yield f"id: {number}\nevent: {event.name}\ndata: {data}\n\n"


def _number(text: str, name: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise Missing(f"{name} {text!r:.40}", "a whole number", "name another one")
    return read_number(text[:20], name, int, 0, 2**31 - 1)


def _bytes(
    request: Request, data: bytes, media_type: str, headers: dict[str, str] | None = None
) -> Response:
    """An answer that a browser may keep, if it asks each time whether it is still right."""
    tag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache"} | (headers or {})
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(None, 304, headers)
    return Response(data, 200, headers, media_type)


def _file(folder: Path, name: str) -> Response:
    if "/" in name or name.startswith(".") or not (folder / name).is_file():
        raise Missing(f"file {name!r:.40}", "a file that there is", "name another one")
    kind = TYPES.get(Path(name).suffix, BYTES)
    return FileResponse(folder / name, media_type=kind, headers={"Cache-Control": "no-cache"})


def _refuse(request: Request, error: InputError) -> Response:
    status = next(code for kind, code in STATUS.items() if isinstance(error, kind))
    more = {}
    if isinstance(error, Conflict) and error.revision:
        more = {"revision": error.revision}
    return JSONResponse({"error": error_facts(error)} | more, status)


def _refuse_disk(request: Request, error: OSError) -> Response:
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO):
        raise error
    return _refuse(request, DiskFull(f"{error}", "a file that can be written", "make room"))


def _refuse_cancelled(request: Request, error: Exception) -> Response:
    return _refuse(request, Restarting("an answer that was given up", "another try", "try again"))


def _refuse_path(request: Request, error: Any) -> Response:
    return refusal(
        error.status_code, f"{request.method} {request.url.path:.80}", "a route", "see API.md"
    )


def serve(place: Place, port: int, browser: bool) -> None:
    """Open a session and serve it on 127.0.0.1 until Ctrl+C."""
    listener = _listen(port)
    with Session(place) as session:
        host = "{}:{}".format(*listener.getsockname())
        token = read_token(place.state / "token")
        address = f"http://{host}/?token={token}"
        print(f"studio of {place.study}: {address}", flush=True)
        config = uvicorn.Config(
            Server(session).app(host, token),
            http="h11",
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=1,
        )
        if browser:
            webbrowser.open(address)
        uvicorn.Server(config).run([listener])


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # no delay
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError as error:
        raise InputError(
            f"port {port}, which is taken", "a free one", "choose another --port, or 0 for any"
        ) from error
    listener.listen(128)
    return listener
