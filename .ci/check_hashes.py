"""Compare what pip has installed with the hashes in the lock.

    python .ci/check_hashes.py REPORT LOCK

pip itself checks hashes only where everything that it installs has one, which a checkout has not.
Packages that the lock does not name, or names without hashes, such as local builds of PyTorch and
what these need, are listed and not checked. The exit code is 1 where a hash differs.
"""

import json
import re
import sys
from pathlib import Path


def hashes_of(lock: str) -> dict[str, set[str]]:
    """Return the SHA-256 digests that a lock allows for each package."""
    allowed: dict[str, set[str]] = {}
    for entry in re.split(r"\n(?=\S)", lock):
        if found := re.match(r"([\w.-]+)==", entry):
            digests = re.findall(r"--hash=sha256:(\w+)", entry)
            allowed.setdefault(canonical(found[1]), set()).update(digests)
    return allowed


def canonical(name: str) -> str:
    """Return the name of a package as PyPI compares names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def check(report: dict, lock: str) -> tuple[list[str], list[str]]:
    """Return the packages whose hash differs, and those that the lock has no hash for."""
    allowed = hashes_of(lock)
    wrong, unchecked = [], []
    for package in report["install"]:
        archive = package["download_info"].get("archive_info")
        name = canonical(package["metadata"]["name"])
        if archive is None:
            continue  # the checkout itself
        if not allowed.get(name):
            unchecked.append(name)
        elif archive.get("hashes", {}).get("sha256") not in allowed[name]:
            wrong.append(f"{name} {package['metadata']['version']}")
    return wrong, unchecked


def main() -> None:
    """Print what differs, and exit with 1 where anything does."""
    report, lock = (Path(argument).read_text() for argument in sys.argv[1:])
    wrong, unchecked = check(json.loads(report), lock)
    if unchecked:
        print(f"not in requirements.lock, installed unchecked: {', '.join(sorted(unchecked))}")
    if wrong:
        sys.exit(
            f"not what requirements.lock says: {', '.join(sorted(wrong))}; remove .venv, and find "
            "out where pip got it"
        )


if __name__ == "__main__":
    main()
