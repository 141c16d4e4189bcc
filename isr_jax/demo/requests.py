"""What visitors send to the page of `isr demo`: bounded in size and time, and checked."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from starlette.requests import Request

from isr_jax.demo.models import AUTOMATIC, Choice
from isr_jax.errors import UserError
from isr_jax.upscaling.sizes import Target, make_target

SCALES = (2, 3, 4, 6, 8)
TILES = (32, 64, 128, 256, 512)
SILENCE, SLOWEST = 20.0, 600.0  # seconds that a body may pause, and take in all
LARGEST = 10_000  # bytes of JSON
MOST = 10**6  # pixels of a side, megapixels, and scale
SAFE = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}


async def chunks_of(request: Request, *, most: float, too_large: str) -> AsyncIterator[bytes]:
    """Yield the body of a request.

    Args:
        request: from a visitor.
        most: bytes that it may have.
        too_large: the message for more.

    Raises:
        UserError: it has more, or comes too slowly.
    """
    stream, size, end = aiter(request.stream()), 0, time.monotonic() + SLOWEST
    while True:
        try:
            chunk = await asyncio.wait_for(anext(stream), SILENCE)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise UserError("the connection is too slow; try again") from None
        size += len(chunk)
        if size > most:
            raise UserError(too_large)
        if time.monotonic() > end:
            raise UserError("the connection is too slow; try again")
        yield chunk


async def wanted_of(
    request: Request, choices: Sequence[Choice]
) -> tuple[Choice, Target, int | None] | None:
    """Return the model, size and tile size that a request asks for; None where there are none."""
    chunks = chunks_of(request, most=LARGEST, too_large="the request is too large")
    try:
        wanted = json.loads(b"".join([chunk async for chunk in chunks]))
        model, size, tile = wanted["model"], wanted["size"], wanted["tile"]
    except UserError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if model is not None and (type(model) is not int or not 0 <= model < len(choices)):
        return None
    if tile is not None and (type(tile) is not int or tile not in TILES):
        return None
    target = _target_of(size)
    return target and (AUTOMATIC if model is None else choices[model], target, tile)


def _target_of(size: Any) -> Target | None:
    """Return the target that JSON such as {"width": 1920} stands for; None where it is none."""
    if type(size) is not dict or len(size) != 1:
        return None
    ((kind, value),) = size.items()
    numbers = value if kind == "fit" and type(value) is list else [value]
    if any(type(x) not in (int, float) or not 0 < x <= MOST for x in numbers):
        return None
    try:
        given: dict[str, Any] = {kind: tuple(value) if kind == "fit" else value}
        return make_target(**given)
    except (UserError, TypeError):
        return None


class SafeHeaders:
    """Middleware that adds the headers of SAFE to every response."""

    def __init__(self, app: Any) -> None:
        """Wrap an application."""
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Handle a request."""

        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = [(name.encode(), value.encode()) for name, value in SAFE.items()]
                message = {**message, "headers": [*message["headers"], *headers]}
            await send(message)

        await self.app(scope, receive, with_headers)
