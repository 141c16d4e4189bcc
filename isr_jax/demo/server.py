"""The server of `isr demo`: photos come in, are enlarged one at a time, and are forgotten.

Each open page is a session. It has a folder below one temporary folder, which goes when the page
is closed, has not been heard of for IDLE seconds, or takes another photo. All that changes is
changed by the event loop; threads only compute.
"""

import asyncio
import contextlib
import ipaddress
import json
import logging
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import uvicorn
from PIL import Image
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import (
    FileResponse,
    HTMLResponse,
    JSONResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Route

from isr_jax.demo.models import MEGA, Choice, Limits
from isr_jax.demo.photos import EXCUSED, Stopped, View, enlarge, take
from isr_jax.errors import UserError, one_line

SCALES = (2, 3, 4, 6, 8)
TILES = (32, 64, 128, 256, 512)
# So that whatever is taken can be enlarged by 4.
LARGEST_RESULT = 16
IDLE, SWEEP = 900.0, 30.0
POLL = 0.2


@dataclass
class Upload:
    """A photo that has come in.

    Attributes:
        folder: of its files.
        name: as its owner calls it.
        size: width and height, upright.
        jobs: those that still may write into the folder.
        dropped: the folder is to go when there are none.
        result: the folder of the last result.
        shown: the views, and the results to download, by the last part of their URL.
    """

    folder: Path
    name: str
    size: tuple[int, int] = (0, 0)
    jobs: list["Job"] = field(default_factory=list)
    dropped: bool = False
    result: Path | None = None
    shown: dict[str, tuple[Path, str | None]] = field(default_factory=dict)


@dataclass(eq=False)
class Job:
    """One enlargement: what its page is told of it, and whether that still listens."""

    told: asyncio.Queue = field(default_factory=asyncio.Queue)
    stop: threading.Event = field(default_factory=threading.Event)


@dataclass
class Session:
    """An open page: its photo, and when it was last heard of."""

    seen: float
    upload: Upload | None = None


class Server:
    """The sessions and the one worker behind the routes."""

    def __init__(self, folder: Path, choices: Sequence[Choice], limits: Limits) -> None:
        self.folder, self.choices, self.limits = folder, choices, limits
        self.sessions: dict[str, Session] = {}
        self.line: list[Job] = []
        self.worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="isr-demo")
        self.page = files("isr_jax.demo").joinpath("page.html").read_text(encoding="utf-8")
        self.ending: Callable[[], bool] = lambda: False

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """Forget silent pages while it runs; stop and await the computation at the end."""
        sweeper = asyncio.create_task(self.sweep())
        yield
        sweeper.cancel()
        for job in self.line:
            job.stop.set()
        await run_in_threadpool(self.worker.shutdown, cancel_futures=True)

    async def sweep(self) -> None:
        """Forget pages that have not been heard of."""
        while True:
            await asyncio.sleep(SWEEP)
            for token, session in list(self.sessions.items()):
                busy = session.upload and session.upload.jobs
                if not busy and time.monotonic() - session.seen > IDLE:
                    self.forget(token)

    def forget(self, token: str) -> None:
        """End a session."""
        session = self.sessions.pop(token, None)
        if session:
            self.drop(session.upload)

    def drop(self, upload: Upload | None) -> None:
        """Remove a photo's files, as soon as no job writes there."""
        if upload:
            upload.dropped = True
            for job in upload.jobs:
                job.stop.set()
            if not upload.jobs:
                shutil.rmtree(upload.folder, ignore_errors=True)

    def session(self, request: Request) -> Session:
        """The session of a request, which is now heard of."""
        token = request.headers.get("x-session") or request.path_params.get("token", "")
        session = self.sessions.get(token)
        if session is None:
            raise UserError(
                "this page has been idle too long; reload it and choose the photo again"
            )
        session.seen = time.monotonic()
        return session

    async def home(self, request: Request) -> Response:
        """The page, with a new session."""
        token, nonce = secrets.token_urlsafe(18), secrets.token_urlsafe(18)
        self.sessions[token] = Session(time.monotonic())
        settings = {
            "session": token,
            "models": [choice._asdict() for choice in self.choices],
            "scales": SCALES,
            "tiles": TILES,
            "megapixels": self.limits.pixels,
            "upload": self.limits.upload,
        }
        text = self.page.replace("{{nonce}}", nonce)
        text = text.replace("{{settings}}", json.dumps(settings).replace("<", "\\u003c"))
        policy = (
            "default-src 'none'; img-src 'self' data:; connect-src 'self'; "
            f"style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        headers = {"content-security-policy": policy, "cache-control": "no-store"}
        return HTMLResponse(text, headers=headers)

    async def alive(self, request: Request) -> Response:
        """The page is still open."""
        self.session(request)
        return JSONResponse({})

    async def leave(self, request: Request) -> Response:
        """The page is closed."""
        self.forget(request.path_params["token"])
        return Response()

    async def photo(self, request: Request) -> Response:
        """Take a photo, in place of the session's last one: its size, and a view of it."""
        session = self.session(request)
        name = Path(request.query_params.get("name", "").replace("\\", "/")).name or "photo"
        most = self.limits.upload * MEGA
        declared = request.headers.get("content-length", "")
        too_large = f"{name} is larger than {self.limits.upload:g} MB (--max-upload)"
        if declared.isdecimal() and int(declared) > most:
            return JSONResponse({"error": too_large}, status_code=413)
        self.drop(session.upload)
        session.upload = None
        upload = Upload(Path(tempfile.mkdtemp(dir=self.folder)), name)
        try:
            size = 0
            with open(upload.folder / "photo", "wb") as out:
                async for chunk in request.stream():
                    size += len(chunk)
                    if size > most:
                        return JSONResponse({"error": too_large}, status_code=413)
                    out.write(chunk)
            taken = await run_in_threadpool(
                take, upload.folder / "photo", name, most=self.limits.pixels
            )
            upload.size = taken.size
            if request.headers.get("x-session") in self.sessions:
                # Another photo may have come meanwhile.
                self.drop(session.upload)
                session.upload = upload
        except ClientDisconnect:
            return Response()
        finally:
            if session.upload is not upload:
                shutil.rmtree(upload.folder, ignore_errors=True)
        view = self.show(upload, taken.view)
        return JSONResponse(
            {"name": name, "size": taken.size, "view": view, "notices": taken.notices}
        )

    def show(self, upload: Upload, view: View, name: str | None = None) -> dict[str, Any]:
        """The last part of a URL of a file, to view or to save by a name."""
        key = secrets.token_urlsafe(9)
        upload.shown[key] = view.file, name
        return {"key": key, "smaller": view.smaller}

    async def file(self, request: Request) -> Response:
        """A view, or a result to save."""
        # A forgotten page is told 404: it would save the words of an error as the photo.
        known = request.path_params["token"] in self.sessions
        upload = self.session(request).upload if known else None
        path, name = (upload.shown if upload else {}).get(request.path_params["key"], (None, None))
        if path is None:
            return Response(status_code=404)
        return FileResponse(
            path, media_type="image/png", filename=name, headers={"cache-control": "no-store"}
        )

    async def start(self, request: Request) -> Response:
        """Enlarge the session's photo: lines of JSON, until the last has an error or a result."""
        upload = self.session(request).upload
        if upload is None:
            raise UserError("choose a photo first")
        wanted = await request.json()
        try:
            choice = self.choices[wanted["model"]]
            scale, tile = choice.scale or wanted["scale"], wanted["tile"]
        except (IndexError, KeyError, TypeError):
            choice = None
        if choice is None or scale not in (choice.scale, *SCALES) or tile not in (None, *TILES):
            return JSONResponse({"error": "no such model, scale or tile size"}, status_code=422)
        width, height = (side * scale for side in upload.size)
        most = self.limits.pixels * LARGEST_RESULT
        if width * height > most * MEGA:
            raise UserError(
                f"{upload.name} enlarged by {scale} has {width * height / MEGA:.0f} megapixels; a "
                f"result can have {most:g}, {LARGEST_RESULT} times --max-megapixels"
            )
        loop = asyncio.get_running_loop()
        for old in upload.jobs:
            old.stop.set()
        job = Job()

        def tell(**event: Any) -> None:
            with contextlib.suppress(RuntimeError):  # the loop may have ended
                loop.call_soon_threadsafe(job.told.put_nowait, event)

        def finish(future: Future) -> None:
            self.line.remove(job)
            upload.jobs.remove(job)
            if upload.dropped:
                self.drop(upload)
            elif not future.cancelled():
                job.told.put_nowait(self.outcome(upload, scale, future))

        future = self.worker.submit(
            enlarge,
            upload.folder / "photo",
            choice,
            scale=scale,
            tile=tile,
            tell=tell,
            stop=job.stop,
        )
        self.line.append(job)
        upload.jobs.append(job)

        def finished(future: Future) -> None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(finish, future)

        future.add_done_callback(finished)
        return StreamingResponse(
            self.events(request, job, future), media_type="application/x-ndjson"
        )

    def outcome(self, upload: Upload, scale: int, future: Future) -> dict[str, Any]:
        """The last that a page is told of a job."""
        error = future.exception()
        if isinstance(error, MemoryError):
            return {"error": f"{upload.name}: the memory is too small for this; choose less scale"}
        if isinstance(error, Stopped):
            return {"error": "stopped"}
        if error:
            if not isinstance(error, EXCUSED):
                logging.getLogger("uvicorn.error").error("a bug", exc_info=error)
            return {"error": f"{upload.name}: {one_line(error)}"}
        result, view, seconds = future.result()
        if upload.result:
            shutil.rmtree(upload.result, ignore_errors=True)
        upload.result = result.parent
        width, height = (side * scale for side in upload.size)
        name = f"{Path(upload.name).stem}_x{scale}.png"
        return {
            "result": self.show(upload, View(result, 1), name),
            "view": self.show(upload, view),
            "name": name,
            "size": (width, height),
            "bytes": result.stat().st_size,
            "seconds": seconds,
        }

    async def events(self, request: Request, job: Job, future: Future) -> AsyncIterator[str]:
        """What a job tells, as lines of JSON; it is stopped where the page has gone."""
        ahead = None
        try:
            while not self.ending():
                try:
                    event = await asyncio.wait_for(job.told.get(), POLL)
                except TimeoutError:
                    if await request.is_disconnected():
                        return
                    now = self.line.index(job) if job in self.line else 0
                    if now == ahead:
                        continue
                    ahead, event = now, {"ahead": now}
                yield json.dumps(event) + "\n"
                if "error" in event or "result" in event:
                    return
        finally:
            job.stop.set()
            future.cancel()

    def app(self, hosts: Sequence[str]) -> Starlette:
        """The routes, for requests to these hosts."""
        routes = [
            Route("/", self.home),
            Route("/alive", self.alive, methods=["POST"]),
            Route("/leave/{token}", self.leave, methods=["POST"]),
            Route("/photo", self.photo, methods=["POST"]),
            Route("/enlarge", self.start, methods=["POST"]),
            Route("/files/{token}/{key}", self.file),
        ]
        return Starlette(
            routes=routes,
            # Pages of other sites could otherwise reach this one by a name that they redirect here.
            middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))],
            # Not a status of 4xx, which browsers would show as an error of the page.
            exception_handlers={UserError: lambda _, error: JSONResponse({"error": str(error)})},
            lifespan=self.lifespan,
        )


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        UserError: where that cannot be.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except (OSError, UnicodeError) as error:
        reason = one_line(getattr(error, "strerror", None) or error)
        raise UserError(
            f"cannot listen on {host}, port {port} ({reason}); choose others by --host and --port"
        ) from error


def serve(listening: socket.socket, choices: Sequence[Choice], limits: Limits) -> int:
    """Serve the page until a signal ends it, and leave no files; returns the exit code."""
    address, port = listening.getsockname()[:2]
    ip = ipaddress.ip_address(address.partition("%")[0])
    # `probe` and the limits of the page stand in for Pillow's own limit.
    Image.MAX_IMAGE_PIXELS = None
    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="isr-demo-", ignore_cleanup_errors=True) as folder:
        server = Server(Path(folder), choices, limits)
        hosts = ("localhost", str(ip), f"[{ip}]") if ip.is_loopback else ("*",)
        config = uvicorn.Config(
            server.app(hosts), log_level="error", timeout_graceful_shutdown=5, server_header=False
        )
        web = uvicorn.Server(config)
        server.ending = lambda: web.should_exit
        # Uvicorn ends in peace and then raises the signal again, which must not skip the cleaning.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        if hasattr(signal, "SIGHUP"):
            signal.signal(signal.SIGHUP, web.handle_exit)
        shown = f"[{ip}]" if ip.version == 6 else str(ip)
        print(f"isr demo: http://{shown}:{port} (Ctrl-C ends it)", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            web.run(sockets=[listening])
    return 0
