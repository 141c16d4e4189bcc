"""The server of `isr demo`: it takes photos, upscales them one at a time, and deletes them.

State is changed by the event loop alone; photos are read and upscaled by processes of their own,
which can be killed, and threads only wait for them.
"""

import asyncio
import contextlib
import ipaddress
import json
import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import (
    FileResponse,
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Route

from isr_jax.demo import requests
from isr_jax.demo.models import MEGA, Choice, Limits
from isr_jax.demo.photos import View, take, upscale
from isr_jax.demo.sessions import (
    Job,
    Session,
    Sessions,
    Upload,
    bytes_below,
    remove_left_over,
)
from isr_jax.demo.worker import BugError, Stopped, Worker
from isr_jax.errors import UserError, disk_error, one_line
from isr_jax.pages import page_template
from isr_jax.photo.formats import KINDS, SUFFIXES
from isr_jax.upscaling.sizes import Target, size_of

# In multiples of --max-megapixels: every accepted photo can be upscaled by 4.
LARGEST_RESULT = 16
POLL = 0.2  # seconds between checks whether the page is still there


class Server:
    """The sessions and the workers behind the routes.

    Attributes:
        folder: holds the uploads.
        choices: the models that the page offers.
        limits: on photos and files.
        reader: the process that reads what visitors send.
        upscaler: the process that upscales it.
        sessions: the open pages.
        queue: the jobs in the order of computation, the running one first.
        ending: whether the server is shutting down.
    """

    def __init__(
        self,
        folder: Path,
        choices: Sequence[Choice],
        limits: Limits,
        *,
        reader: Worker,
        upscaler: Worker,
    ) -> None:
        self.folder, self.choices, self.limits = folder, choices, limits
        self.reader, self.upscaler = reader, upscaler
        self.sessions = Sessions()
        self.queue: list[Job] = []
        self.worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="isr-demo")
        self.page = page_template("isr_jax.demo", "page.html")
        self.ending: Callable[[], bool] = lambda: False

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """End the sessions of silent pages while running; at the end, stop and await the worker."""
        sweeper = asyncio.create_task(self.sessions.sweep())
        yield
        sweeper.cancel()
        for job in self.queue:
            job.stop.set()
        self.reader.close()
        self.upscaler.close()
        await run_in_threadpool(self.worker.shutdown, cancel_futures=True)

    def session(self, request: Request) -> Session:
        """Return the session of a request, and note that its page is alive."""
        token = request.headers.get("x-session") or request.path_params.get("token", "")
        return self.sessions.find(token)

    async def home(self, request: Request) -> Response:
        """Return the page, with a new session; only its headers to who asks for no more."""
        if request.method == "HEAD":
            return HTMLResponse()
        try:
            token = self.sessions.open()
        except UserError as error:
            return PlainTextResponse(str(error), status_code=503)
        nonce = secrets.token_urlsafe(18)
        settings = {
            "session": token,
            "models": [choice._asdict() for choice in self.choices],
            "scales": requests.SCALES,
            "tiles": requests.TILES,
            "megapixels": self.limits.pixels,
            "upload": self.limits.upload,
            "kinds": KINDS,
            "suffixes": SUFFIXES,
        }
        policy = (
            "default-src 'none'; img-src 'self' data:; connect-src 'self'; "
            f"style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        headers = {"content-security-policy": policy, "cache-control": "no-store"}
        text = self.page.render(nonce=nonce, settings=settings)
        return HTMLResponse(text, headers=headers)

    async def alive(self, request: Request) -> Response:
        """Note that the page is still open."""
        self.session(request)
        return JSONResponse({})

    async def leave(self, request: Request) -> Response:
        """End the session of a page that is being closed."""
        self.sessions.close(request.path_params["token"])
        return Response()

    async def photo(self, request: Request) -> Response:
        """Take a photo in place of the session's previous one; return its size and a view."""
        session = self.session(request)
        name = Path(request.query_params.get("name", "").replace("\\", "/")).name or "photo"
        most = self.limits.upload * MEGA
        declared = request.headers.get("content-length", "")
        too_large = f"{name} is larger than {self.limits.upload:g} MB (--max-upload)"
        if declared.isdecimal() and int(declared) > most:
            return JSONResponse({"error": too_large}, status_code=413)
        self.check_room()
        session.replace(None)
        upload = Upload(_new_folder(self.folder), name)
        try:
            with open(upload.folder / "photo", "wb") as out:
                async for chunk in requests.chunks_of(request, most=most, too_large=too_large):
                    out.write(chunk)
            reading = partial(take, upload.folder / "photo", name, most=self.limits.pixels)
            taken = await run_in_threadpool(self.reader.call, reading)
            upload.size = taken.size
            if request.headers.get("x-session") in self.sessions.pages:
                session.replace(upload)  # another photo may have arrived meanwhile
        except (ClientDisconnect, Stopped):
            return Response()
        except (UserError, BugError, OSError) as error:
            text = _said(error)
            raise UserError(text if text.startswith(name) else f"{name}: {text}") from error
        finally:
            if session.upload is not upload:
                shutil.rmtree(upload.folder, ignore_errors=True)
        view = _shared(upload, taken.view)
        return JSONResponse(
            {"name": name, "size": taken.size, "view": view, "notices": taken.notices}
        )

    def check_room(self) -> None:
        """Raise a UserError where the files of all visitors take more than they may."""
        if bytes_below(self.folder) > self.limits.disk * MEGA:
            raise UserError("there is no room at the moment; try again in a few minutes")

    async def file(self, request: Request) -> Response:
        """Return a view, or a result to save."""
        # 404 if the session has ended: the browser would save an error message as the photo.
        known = request.path_params["token"] in self.sessions.pages
        upload = self.session(request).upload if known else None
        path, name = (upload.files if upload else {}).get(request.path_params["key"], (None, None))
        if path is None:
            return Response(status_code=404)
        return FileResponse(
            path, media_type="image/png", filename=name, headers={"cache-control": "no-store"}
        )

    async def start(self, request: Request) -> Response:
        """Upscale the session's photo; stream lines of JSON that end with an error or a result."""
        upload = self.session(request).upload
        if upload is None:
            raise UserError("choose a photo first")
        wanted = await requests.wanted_of(request, self.choices)
        if wanted is None:
            return JSONResponse({"error": "no such model, size or tile size"}, status_code=422)
        choice, target, tile = wanted
        height, width = size_of(target, (upload.size[1], upload.size[0]))
        most = self.limits.pixels * LARGEST_RESULT
        if width * height > most * MEGA:
            raise UserError(
                f"{upload.name} upscaled to {width}x{height} has {width * height / MEGA:.0f} "
                f"megapixels; a result can have {most:g}, {LARGEST_RESULT} times --max-megapixels"
            )
        self.check_room()
        loop = asyncio.get_running_loop()
        for old in upload.jobs:
            old.stop.set()
        job = Job()

        def tell(**event: Any) -> None:
            with contextlib.suppress(RuntimeError):  # the loop may be closed
                loop.call_soon_threadsafe(job.events.put_nowait, event)

        def finish(future: Future) -> None:
            self.queue.remove(job)
            upload.jobs.remove(job)
            if upload.discarded:
                upload.discard()
                job.events.put_nowait({"error": "stopped"})
            elif not future.cancelled():
                job.events.put_nowait(_outcome(upload, target, future))

        work = partial(upscale, upload.folder / "photo", choice, target=target, tile=tile)
        future = self.worker.submit(self.upscaler.call, work, tell=tell, stop=job.stop)
        self.queue.append(job)
        upload.jobs.append(job)

        def finished(future: Future) -> None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(finish, future)

        future.add_done_callback(finished)
        return StreamingResponse(
            self.stream(request, job, future), media_type="application/x-ndjson"
        )

    async def stream(self, request: Request, job: Job, future: Future) -> AsyncIterator[str]:
        """Yield the events of a job as lines of JSON; stop the job when the page is gone."""
        ahead = None
        try:
            while not self.ending():
                try:
                    event = await asyncio.wait_for(job.events.get(), POLL)
                except TimeoutError:
                    if await request.is_disconnected():
                        return
                    now = self.queue.index(job) if job in self.queue else 0
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
        """Return the application, for requests to these hosts."""
        routes = [
            Route("/", self.home),
            Route("/alive", self.alive, methods=["POST"]),
            Route("/leave/{token}", self.leave, methods=["POST"]),
            Route("/photo", self.photo, methods=["POST"]),
            Route("/upscale", self.start, methods=["POST"]),
            Route("/files/{token}/{key}", self.file),
        ]
        return Starlette(
            routes=routes,
            # Otherwise pages of other sites could reach this one through a host name of theirs that
            # resolves to this machine.
            middleware=[
                Middleware(requests.SafeHeaders),
                Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts)),
            ],
            # Status 200, because browsers log 4xx as an error of the page.
            exception_handlers={UserError: lambda _, error: JSONResponse({"error": str(error)})},
            lifespan=self.lifespan,
        )


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Args:
        host: name or address.
        port: TCP port; 0 for any free one.

    Raises:
        UserError: the address is not available.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except (OSError, UnicodeError) as error:
        reason = one_line(getattr(error, "strerror", None) or error)
        raise UserError(
            f"cannot listen on {host}, port {port} ({reason}); choose another --host or --port"
        ) from error


def serve(listening: socket.socket, choices: Sequence[Choice], limits: Limits) -> int:
    """Serve the page until a signal arrives, leave no files, and return the exit code."""
    address, port = listening.getsockname()[:2]
    ip = ipaddress.ip_address(address.partition("%")[0])
    remove_left_over()
    prefix = f"isr-demo-{os.getpid()}-"
    with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as folder:
        server = Server(
            Path(folder),
            choices,
            limits,
            reader=Worker("isr-demo-reader", seconds=min(60.0, limits.seconds)),
            upscaler=Worker(
                "isr-demo-upscaler",
                seconds=limits.seconds,
                option="--max-seconds",
                modules=["isr_jax.upscaling.any_size"],
            ),
        )
        hosts = ("localhost", str(ip), f"[{ip}]") if ip.is_loopback else ("*",)
        config = uvicorn.Config(
            server.app(hosts), log_level="error", timeout_graceful_shutdown=5, server_header=False
        )
        web = uvicorn.Server(config)
        server.ending = lambda: web.should_exit
        # Uvicorn shuts down and then raises the signal again, which must not skip the clean-up.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            signal.signal(signal.SIGHUP, web.handle_exit)
        shown = f"[{ip}]" if ip.version == 6 else str(ip)
        print(f"isr demo: http://{shown}:{port} (Ctrl-C to stop)", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            web.run(sockets=[listening])
    return 0


def _new_folder(folder: Path) -> Path:
    try:
        return Path(tempfile.mkdtemp(dir=folder))
    except OSError as error:
        raise UserError(_said(error)) from error


def _said(error: BaseException) -> str:
    """Return what the page says of an error; a bug's traceback goes to the log."""
    if isinstance(error, BugError):
        logging.getLogger("uvicorn.error").error("a bug in isr_jax: %s", error)
        return "a bug in isr_jax; the server's log has it"
    full = disk_error(error)
    return f"the server cannot keep it: {full}" if full else one_line(error)


def _outcome(upload: Upload, target: Target, future: Future) -> dict[str, Any]:
    """Return the last event of a job: its result or its error."""
    error = future.exception()
    if isinstance(error, Stopped):
        return {"error": "stopped"}
    if error:
        return {"error": f"{upload.name}: {_said(error)}"}
    result, view, seconds, notices = future.result()
    if upload.result:
        upload.forget(upload.result)
    upload.result = result.parent
    height, width = size_of(target, (upload.size[1], upload.size[0]))
    name = f"{Path(upload.name).stem}_{target.label}.png"
    return {
        "result": _shared(upload, View(result, 1), name=name),
        "view": _shared(upload, view),
        "name": name,
        "size": (width, height),
        "bytes": result.stat().st_size,
        "seconds": seconds,
        "notices": notices,
    }


def _shared(upload: Upload, view: View, *, name: str | None = None) -> dict[str, Any]:
    """Make a view available to the page; return what the page needs to display or save it."""
    return {"key": upload.share(view.file, name=name), "smaller": view.smaller}
