"""The page of `isr demo` under load, and under visitors who mean no good.

    python -m benchmarks.page [--visitors N]

Starts the server, and prints what its answers were and how long they took: N visitors at once, each
with a photograph to be doubled by compact-x2; as many connections that send a byte a second; a body
of 500 MB; bodies that are no JSON; its working process killed in mid-work. Memory is that of the
server and its two processes together.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import imagecodecs
import skimage.data

from benchmarks import timing
from isr_jax.resize import resize_uint8

MAIN = "import sys; from isr_jax.cli import main; sys.exit(main())"


def main() -> None:
    """Print a Markdown table."""
    parser = timing.parser(__doc__)
    parser.add_argument("--visitors", type=int, default=50)
    options = parser.parse_args()
    timing.print_machine()
    photo = imagecodecs.png_encode(resize_uint8(skimage.data.coffee(), size=(120, 160)))
    with TemporaryDirectory() as folder:
        environment = {**os.environ, "TMPDIR": folder}
        command = [sys.executable, "-c", MAIN, "demo", "--port", "0"]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=environment
        ) as server:
            assert server.stdout
            host = server.stdout.readline().split()[2].removeprefix("http://")
            print("| | answers | seconds | memory, GB |\n|---|---|---:|---:|", flush=True)
            _show(server, "a visitor", lambda: [_upscale(host, photo)])
            with ThreadPoolExecutor(options.visitors) as pool:

                def visit(_: int) -> str:
                    return _upscale(host, photo)

                name = f"{options.visitors} visitors at once"
                _show(server, name, lambda: list(pool.map(visit, range(options.visitors))))
            slow = [_slow(host) for _ in range(options.visitors)]
            name = f"a visitor beside {options.visitors} connections that send a byte a second"
            _show(server, name, lambda: [_upscale(host, photo)])
            for stop in slow:
                stop.set()
            _show(server, "a body of 500 MB", lambda: [_large(host)])
            _show(
                server,
                "100 bodies that are no JSON",
                lambda: [_bad(host, photo) for _ in range(100)],
            )
            _show(server, "the working process killed", lambda: [_killed(server, host, photo)])
            _show(server, "a visitor afterwards", lambda: [_upscale(host, photo)])
            begin = time.monotonic()
            server.send_signal(signal.SIGTERM)
            code = server.wait(60)
            left = len(list(Path(folder).glob("isr-demo-*")))
            seconds = time.monotonic() - begin
            print(f"| SIGTERM | exit code {code}, {left} folders left | {seconds:.1f} | |")


def _show(server: subprocess.Popen, name: str, act: Any) -> None:
    begin = time.monotonic()
    answers = act()
    seconds = time.monotonic() - begin
    counted = ", ".join(f"{answers.count(a)} {a}" for a in sorted(set(answers)))
    print(f"| {name} | {counted} | {seconds:.1f} | {_memory(server.pid) / 1e9:.2f} |", flush=True)


def _memory(process: int) -> float:
    """Return the bytes in memory of a process and its children."""
    total = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = (folder / "status").read_text()
        except OSError:
            continue
        parent = int(re.search(r"PPid:\s+(\d+)", status)[1])  # type: ignore[index]
        if int(folder.name) == process or parent == process:
            found = re.search(r"VmRSS:\s+(\d+) kB", status)
            total += int(found[1]) * 1024 if found else 0
    return total


def _session(connection: HTTPConnection) -> dict[str, Any]:
    connection.request("GET", "/")
    home = connection.getresponse().read().decode()
    return json.loads(re.search('id="settings">(.*)</script>', home)[1])  # type: ignore[index]


def _post(connection: HTTPConnection, path: str, body: Any, session: str) -> Any:
    connection.request("POST", path, body, {"x-session": session})
    return connection.getresponse()


def _begin(host: str, photo: bytes) -> tuple[HTTPConnection, str, str]:
    """Return a connection with a photo, its session, and a request to double it."""
    connection = HTTPConnection(host, timeout=300)
    settings = _session(connection)
    _post(connection, "/photo?name=a.png", photo, settings["session"]).read()
    models = [model["model"] for model in settings["models"]]
    wanted = json.dumps({"model": models.index("compact-x2"), "size": {"scale": 2}, "tile": None})
    return connection, settings["session"], wanted


def _upscale(host: str, photo: bytes) -> str:
    connection, session, wanted = _begin(host, photo)
    last = json.loads(_post(connection, "/upscale", wanted, session).read().splitlines()[-1])
    return "results" if "result" in last else f"errors ({last['error']})"


def _slow(host: str) -> threading.Event:
    """Send a byte a second, until the event is set."""
    stop = threading.Event()
    name, port = host.split(":")
    connection = socket.create_connection((name, int(port)))
    head = f"POST /photo?name=a.png HTTP/1.1\r\nHost: {host}\r\nContent-Length: 100000\r\n\r\n"
    connection.sendall(head.encode())

    def send() -> None:
        with connection:
            while not stop.wait(1):
                try:
                    connection.send(b"x")
                except OSError:
                    return

    threading.Thread(target=send, daemon=True).start()
    return stop


def _large(host: str) -> str:
    connection = HTTPConnection(host, timeout=300)
    session = _session(connection)["session"]
    body = (bytes(10**6) for _ in range(500))
    try:
        headers = {"x-session": session, "transfer-encoding": "chunked"}
        connection.request("POST", "/photo?name=a.png", body, headers, encode_chunked=True)
        answer = connection.getresponse()
        return f"refusals ({json.loads(answer.read())['error']})"
    except OSError:
        return "connections closed"


def _bad(host: str, photo: bytes) -> str:
    connection, session, _ = _begin(host, photo)
    return f"answers of status {_post(connection, '/upscale', b'{', session).status}"


def _killed(server: subprocess.Popen, host: str, photo: bytes) -> str:
    connection, session, wanted = _begin(host, photo)
    answer = _post(connection, "/upscale", wanted, session)
    answer.readline()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = (folder / "status").read_text()
            name = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if re.search(rf"PPid:\s+{server.pid}\b", status) and b"spawn_main" in name:
            os.kill(int(folder.name), signal.SIGKILL)
    last = json.loads(answer.read().splitlines()[-1])
    return "results" if "result" in last else f"errors ({last['error']})"


if __name__ == "__main__":
    main()
