"""The page of `isr demo` under visitors who mean no good, and work that does not end."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import pytest

from isr_jax.demo.models import Choice, Limits
from isr_jax.demo.sessions import remove_left_over
from isr_jax.demo.worker import BugError, Stopped, Worker
from isr_jax.errors import UserError
from tests.helpers import demo_page
from tests.helpers.command import ROOT
from tests.helpers.demo_page import post, serving
from tests.helpers.image_files import noise, png


@pytest.fixture
def worker():
    worker = Worker("test", seconds=100.0, option="--max-seconds")
    yield worker
    worker.close()


def test_work_that_takes_too_long_is_killed(worker):
    before = worker.call(demo_page.process_number)
    worker._seconds = 1.0
    with pytest.raises(UserError, match=r"took longer than 1 s \(--max-seconds\)"):
        worker.call(demo_page.endless)
    worker._seconds = 100.0
    assert worker.call(demo_page.process_number) != before
    with pytest.raises(ProcessLookupError):
        os.kill(before, 0)


@pytest.mark.parametrize("work", [demo_page.endless, demo_page.polite])
def test_work_that_nobody_waits_for_ends(worker, work, monkeypatch):
    monkeypatch.setattr("isr_jax.demo.worker.GRACE", 0.2 if work is demo_page.endless else 60.0)
    stop, begun = threading.Event(), threading.Event()
    before = worker.call(demo_page.process_number)
    threading.Thread(target=lambda: begun.wait(60) and stop.set()).start()
    with pytest.raises(Stopped):
        worker.call(work, tell=lambda done: begun.set(), stop=stop)
    # A process that stopped by itself goes on to serve.
    assert (worker.call(demo_page.process_number) == before) == (work is demo_page.polite)


def test_a_crash_and_a_bug_are_told_apart(worker):
    with pytest.raises(UserError, match="the memory was too small for it, or its decoder crashed"):
        worker.call(demo_page.crash)
    with pytest.raises(BugError, match="list index out of range"):
        worker.call(demo_page.wrong)
    assert worker.call(demo_page.process_number)


def test_closing_kills_what_is_at_work(worker):
    begun = threading.Event()
    threading.Thread(target=lambda: begun.wait(60) and worker.close()).start()
    with pytest.raises(Stopped):
        worker.call(demo_page.endless, tell=lambda done: begun.set())


def test_a_worker_ends_with_the_process_that_started_it():
    code = (
        "import os\nfrom isr_jax.demo.worker import Worker\nfrom tests.helpers import demo_page\n"
        "if __name__ == '__main__':\n"
        "    print(Worker('test', seconds=9).call(demo_page.process_number), flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == -signal.SIGKILL
    end = time.monotonic() + 20
    while Path(f"/proc/{int(done.stdout)}").exists():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture
def page(tmp_path):
    """A running server, and a function that opens a connection to it."""
    choices, limits = [Choice("nearest", None)], Limits(0.5, 1, disk=0.2)
    with serving(tmp_path, choices, limits) as (server, address):
        yield server, lambda: HTTPConnection(*address, timeout=20)


def open_session(connection):
    connection.request("GET", "/")
    answer = connection.getresponse()
    home = answer.read().decode()
    return answer, json.loads(re.search('id="settings">(.*)</script>', home)[1])["session"]


GOOD = {"model": 0, "size": {"scale": 2}, "tile": None}
WRONG = [b"", b"{", b"[]", b"17", b"\xff", b"[" * 9000, json.dumps({**GOOD, "model": True})]
WRONG += [json.dumps({**GOOD, name: value}) for name, value in (("model", -1), ("model", 9))]
NO_SIZES = [{"scale": x} for x in (0, -1, "2", [2], None, 10**9, True, float("nan"), 1e-300)]
NO_SIZES += [{"width": 1.5}, {"width": 0}, {"fit": [3]}, {"fit": 3}, {"fit": [3, "4"]}, {"area": 1}]
NO_SIZES += [{}, {"width": 3, "height": 3}, {"fit": [[]] * 9}, {"megapixels": 0}, 2, None, [], "2"]
WRONG += [json.dumps({**GOOD, "size": value}) for value in NO_SIZES]
WRONG += [json.dumps({**GOOD, "tile": value}) for value in (32.0, "32", 31, {})]


def test_wrong_requests_are_answered_not_failed(page):
    _, connect = page
    with closing(connect()) as connection:
        answer, session = open_session(connection)
        assert answer.getheader("x-content-type-options") == "nosniff"
        assert answer.getheader("referrer-policy") == "no-referrer"
        with post(connection, "/photo?name=a.png", png(noise(20, 30, 3)), session) as answer:
            assert json.load(answer)["size"] == [30, 20]
        for body in WRONG:
            with post(connection, "/upscale", body, session) as answer:
                assert answer.status == 422, body
                assert json.load(answer) == {"error": "no such model, size or tile size"}
        with post(connection, "/upscale", b" " * 20_000, session) as answer:
            assert json.load(answer) == {"error": "the request is too large"}
        with post(connection, "/upscale", json.dumps(GOOD), session) as answer:
            assert '"result"' in answer.read().decode()


def test_large_and_slow_bodies_are_cut_off(page, monkeypatch):
    monkeypatch.setattr("isr_jax.demo.requests.SILENCE", 0.3)
    server, connect = page
    with closing(connect()) as connection:
        session = open_session(connection)[1]
        # Of a size that is not declared.
        connection.putrequest("POST", "/photo?name=b.png")
        connection.putheader("X-Session", session)
        connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders()
        for _ in range(20):
            connection.send(b"%x\r\n%s\r\n" % (100_000, bytes(100_000)))
        connection.send(b"0\r\n\r\n")
        error = json.load(connection.getresponse())["error"]
        assert error == "b.png is larger than 1 MB (--max-upload)"
    with closing(connect()) as connection:
        connection.putrequest("POST", "/photo?name=c.png")
        connection.putheader("X-Session", session)
        connection.putheader("Content-Length", "1000")
        connection.endheaders(b"slowly")
        answer = connection.getresponse()
        assert json.load(answer) == {"error": "c.png: the connection is too slow; try again"}
    assert list(server.folder.iterdir()) == []


def test_disk_and_visitors_are_bounded(page, monkeypatch):
    server, connect = page
    with closing(connect()) as connection:
        session = open_session(connection)[1]
        (server.folder / "other").write_bytes(bytes(300_000))
        with post(connection, "/photo?name=a.png", png(noise(20, 30, 3)), session) as answer:
            assert "there is no room at the moment" in json.load(answer)["error"]
        (server.folder / "other").unlink()
        with post(connection, "/photo?name=a.png", png(noise(20, 30, 3)), session) as answer:
            assert json.load(answer)["size"] == [30, 20]
        (server.folder / "other").write_bytes(bytes(300_000))
        with post(connection, "/upscale", json.dumps(GOOD), session) as answer:
            assert "there is no room at the moment" in json.load(answer)["error"]
        # The page without a photo makes room for another visitor; one with a photo does not.
        monkeypatch.setattr("isr_jax.demo.sessions.MOST", 2)
        for _ in range(3):
            connection.request("GET", "/")
            answer = connection.getresponse()
            assert answer.status == 200 and answer.read()
        connection.request("HEAD", "/")
        assert connection.getresponse().read() == b""
        assert len(server.sessions.pages) == 2 and session in server.sessions.pages
        monkeypatch.setattr("isr_jax.demo.sessions.MOST", 1)
        for token in {*server.sessions.pages} - {session}:
            server.sessions.close(token)
        connection.request("GET", "/")
        answer = connection.getresponse()
        assert answer.status == 503
        assert "too many visitors" in answer.read().decode()


def test_a_full_disk_is_said(page, monkeypatch):
    _, connect = page

    def full(**_):
        raise OSError(28, "No space left on device")

    with closing(connect()) as connection:
        session = open_session(connection)[1]
        monkeypatch.setattr(tempfile, "mkdtemp", full)
        with post(connection, "/photo?name=a.png", png(noise(20, 30, 3)), session) as answer:
            assert json.load(answer)["error"].endswith("cannot keep it: No space left on device")


def test_photos_of_a_killed_server_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    for name in (f"isr-demo-{process.pid}-a", f"isr-demo-{os.getpid()}-b", "isr-demo-x-y"):
        (tmp_path / name).mkdir()
    remove_left_over()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [f"isr-demo-{os.getpid()}-b", "isr-demo-x-y"]
    )
