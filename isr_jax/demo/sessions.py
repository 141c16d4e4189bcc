"""Sessions of `isr demo`: open pages, their uploaded photos, and the files that they may fetch.

Each open page is a session. It has a folder below one temporary folder, which is removed when the
page is closed, has been silent for IDLE seconds, or uploads another photo.
"""

import asyncio
import contextlib
import os
import secrets
import shutil
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from isr_jax.errors import UserError

IDLE, SWEEP = 900.0, 30.0  # seconds
MOST = 500  # open pages


@dataclass(eq=False)
class Job:
    """One photo being upscaled: the events for its page, and the signal to stop."""

    events: asyncio.Queue = field(default_factory=asyncio.Queue)
    stop: threading.Event = field(default_factory=threading.Event)


@dataclass
class Upload:
    """An uploaded photo.

    Attributes:
        folder: holds its files.
        name: its file name on the user's machine.
        size: width and height, upright.
        jobs: those that may still write into the folder.
        discarded: whether the folder is to be removed once there are no jobs.
        result: folder of the latest result.
        files: views, and results with the names to save them by, by the last part of their URL.
    """

    folder: Path
    name: str
    size: tuple[int, int] = (0, 0)
    jobs: list[Job] = field(default_factory=list)
    discarded: bool = False
    result: Path | None = None
    files: dict[str, tuple[Path, str | None]] = field(default_factory=dict)

    def share(self, file: Path, *, name: str | None = None) -> str:
        """Make a file available to the page; return the last part of its URL.

        Args:
            file: the file.
            name: the name to save it by; None to display it.
        """
        key = secrets.token_urlsafe(9)
        self.files[key] = file, name
        return key

    def forget(self, folder: Path) -> None:
        """Remove a folder, whose files the page can fetch no longer."""
        shutil.rmtree(folder, ignore_errors=True)
        self.files = {
            key: file for key, file in self.files.items() if folder not in file[0].parents
        }

    def discard(self) -> None:
        """Stop the photo's jobs, and remove its files once no job writes there."""
        self.discarded = True
        for job in self.jobs:
            job.stop.set()
        if not self.jobs:
            shutil.rmtree(self.folder, ignore_errors=True)


@dataclass
class Session:
    """An open page: the time of its last request, and its photo."""

    seen: float
    upload: Upload | None = None

    def replace(self, upload: Upload | None) -> None:
        """Discard the photo in favour of another one."""
        if self.upload:
            self.upload.discard()
        self.upload = upload


class Sessions:
    """The open pages, by their tokens.

    Attributes:
        pages: the sessions.
    """

    def __init__(self) -> None:
        self.pages: dict[str, Session] = {}

    def open(self) -> str:
        """Start a session and return its token; of MOST, the longest silent without a photo ends.

        Raises:
            UserError: there are MOST of them, each with a photo.
        """
        if len(self.pages) >= MOST:
            idle = {token: one.seen for token, one in self.pages.items() if one.upload is None}
            if not idle:
                raise UserError("too many visitors at the moment; try again in a few minutes")
            self.close(min(idle, key=lambda token: idle[token]))
        token = secrets.token_urlsafe(18)
        self.pages[token] = Session(time.monotonic())
        return token

    def find(self, token: str) -> Session:
        """Return a session, and note that its page is alive.

        Raises:
            UserError: the session has ended.
        """
        session = self.pages.get(token)
        if session is None:
            raise UserError(
                "this page has been idle too long; reload it and choose the photo again"
            )
        session.seen = time.monotonic()
        return session

    def close(self, token: str) -> None:
        """End a session and discard its photo."""
        session = self.pages.pop(token, None)
        if session:
            session.replace(None)

    async def sweep(self) -> None:
        """End the sessions of silent pages, forever; a page with a job is not silent."""
        while True:
            await asyncio.sleep(SWEEP)
            for token, session in list(self.pages.items()):
                busy = session.upload and session.upload.jobs
                if not busy and time.monotonic() - session.seen > IDLE:
                    self.close(token)


def bytes_below(folder: Path) -> int:
    """Return the size of all files below a folder."""
    sizes = []
    for file in folder.rglob("*"):
        with contextlib.suppress(OSError):  # it may have gone meanwhile
            sizes.append(file.stat().st_size)
    return sum(sizes)


def remove_left_over() -> None:
    """Remove the photos of servers that were killed: of those whose process has ended."""
    for folder in Path(tempfile.gettempdir()).glob("isr-demo-*-*"):
        try:
            os.kill(int(folder.name.split("-")[2]), 0)
        except ProcessLookupError:
            shutil.rmtree(folder, ignore_errors=True)
        except (OSError, ValueError, OverflowError):
            continue
