"""What a visitor does on the page of `isr demo`, and models that wait for a gate."""

import os
import threading
import time
from contextlib import contextmanager
from types import SimpleNamespace

import imagecodecs

from isr_jax.demo.worker import Stopped, Worker


class InThread(Worker):
    """A worker that calls in the thread that asks, so that a test can replace what is called."""

    def __init__(self):
        pass

    def call(self, function, *, tell=lambda **event: None, stop=None):
        def progress(**event):
            if stop and stop.is_set():
                raise Stopped
            tell(**event)

        return function(progress=progress)

    def close(self):
        pass


@contextmanager
def serving(folder, choices, limits):
    """A server in this process, as the object behind its routes, and its address."""
    import pytest  # here, as processes that work for the page import this module too

    uvicorn = pytest.importorskip("uvicorn", reason="needs pip install 'isr-jax[demo]'")
    demo = pytest.importorskip("isr_jax.demo.server", reason="needs pip install 'isr-jax[demo]'")
    server = demo.Server(folder, choices, limits, reader=InThread(), upscaler=InThread())
    with demo.listen("127.0.0.1", 0) as listening:
        web = uvicorn.Server(uvicorn.Config(server.app(["127.0.0.1"]), log_level="error"))
        server.ending = lambda: web.should_exit
        thread = threading.Thread(target=web.run, kwargs={"sockets": [listening]})
        thread.start()
        yield server, listening.getsockname()
        web.should_exit = True
        thread.join()


class Gate:
    """Models that wait after their first tile until the gate is opened or they are stopped.

    Attributes:
        open: whether they continue.
        stopped: whether one was stopped.
        working: number of models at work.
        most: largest number at once.
    """

    def __init__(self):
        from isr_jax.demo.photos import cached

        self._cached = cached
        self.open, self.stopped = threading.Event(), threading.Event()
        self.working = self.most = 0

    def cached(self, model, tile):
        models = self._cached(model, tile)
        return SimpleNamespace(at=lambda target: self.gated(models.at(target)))

    def gated(self, upscaler):
        def upscale(image, *, progress):
            def wait(done, total):
                progress(done, total)
                while not self.open.wait(0.02):
                    progress(done, total)

            self.working += 1
            self.most = max(self.most, self.working)
            try:
                return upscaler(image, progress=wait)
            except Stopped:
                self.stopped.set()
                raise
            finally:
                self.working -= 1

        upscale.size_remarks = upscaler.size_remarks
        return upscale


def until(condition):
    """Wait for a condition."""
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def choose(page, file):
    """Give the page a photo."""
    page.set_input_files("#file", file)
    page.wait_for_selector("#go:not([disabled])")


def start(page, model, size):
    """Upscale on the page with a model, given by its label or number, and a size.

    The size is a scale factor that the page offers, or what its list of sizes is set to, and the
    numbers that are then filled in.
    """
    number = isinstance(model, int)
    page.select_option("#model", **{"value" if number else "label": str(model)})
    kind, *values = size if isinstance(size, tuple) else (str(size),)
    page.select_option("#size", kind)
    for field, value in zip(("#value", "#value2"), values, strict=False):
        page.fill(field, str(value))
    page.click("#go")


def save(page, saved):
    """Wait for the result, save it, and give the name that the page gave it."""
    page.wait_for_selector("#result:not([hidden])", timeout=20_000)
    with page.expect_download() as download:
        page.click("#save")
    download.value.save_as(saved)
    return download.value.suggested_filename


def upscaled(page, model, size, saved):
    """Upscale on the page; return the pixels and the name of the download."""
    start(page, model, size)
    name = save(page, saved)
    return imagecodecs.imread(saved), name


def repeated(image, times):
    """An image with every pixel repeated, as `nearest` upscales it."""
    return image.repeat(times, axis=0).repeat(times, axis=1)


def divider(page):
    """Where it is: what is shown of the image before, in parts of the image's width."""
    handle, width = page.evaluate(
        """() => {
          const [handle, image] = [".handle", "#after"].map(
            (name) => document.querySelector(name).getBoundingClientRect());
          return [handle.x + handle.width / 2 - image.x, image.width];
        }"""
    )
    return handle / width


def post(connection, path, body, session):
    """The response of the server."""
    connection.request("POST", path, body, {"x-session": session})
    return connection.getresponse()


# What a worker may be asked to do; functions of a module, so that its process finds them.


def endless(*, progress):
    """Work that looks for no sign to stop."""
    progress(done=0)
    while True:
        time.sleep(0.01)


def crash(*, progress):
    """End the process as a fault in a decoder would."""
    os._exit(139)


def process_number(*, progress):
    return os.getpid()


def polite(*, progress):
    """Work that stops when it is asked to."""
    while True:
        progress(done=0)
        time.sleep(0.01)


def wrong(*, progress):
    return [][0]
