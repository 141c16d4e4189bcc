"""The floor plan: which module may import which, and how large one may be."""

from pathlib import Path

from tests.helpers import floors as house

ROOT = Path(__file__).parent.parent


def test_no_cycle():
    assert house.cycle(house.imports()) == []


def test_no_room_imports_from_a_higher_one():
    upward = [
        f"{name} -> {target}"
        for name, targets in house.imports().items()
        for target in targets
        if house.tier(target) > house.tier(name)
    ]
    assert upward == []


def test_every_room_has_its_tier():
    assert {house.room(name) for name in house.modules()} - {""} == {
        name for rooms in house.TIERS for name in rooms
    }


def test_at_most_13_floors():
    assert max(house.floors(house.imports()).values()) <= 13


def test_training_reaches_nothing_of_upscaling_or_the_commands():
    graph = house.imports()
    found = house.reached(graph, "training")
    rooms = {house.room(name) for name in found}
    assert not rooms & {"upscaling", "evaluation", "cli", "demo"}
    encoders = {f"isr_jax.photo.{name}" for name in ("writing", "png", "jpeg", "tiff")}
    assert encoders <= house.modules().keys()
    assert not found & encoders
    direct = house.reached(graph, "training", without="isr_jax.checkpoints.restore")
    assert "pytorch" not in {house.room(name) for name in direct}


def test_no_file_is_over_400_lines():
    folders = ("isr_jax", "configs", "benchmarks", "notebooks", "tests")
    files = [file for folder in folders for file in (ROOT / folder).rglob("*.py")]
    assert {ROOT / "isr_jax/config.py", Path(__file__)} <= {*files}
    lengths = {str(file): len(file.read_text().splitlines()) for file in files}
    assert {file: n for file, n in lengths.items() if n > 400} == {}
