"""Tables on terminals of any width: no digit is lost, and what is left out is named."""

import io
import re

import pytest
from rich.console import Console
from rich.table import Table

import isr_jax
from isr_jax.console import make_console, print_table
from isr_jax.evaluation.tables import evaluation_tables
from isr_jax.training.record import closing_table
from tests.helpers import command
from tests.test_evaluate import photo
from tests.test_evaluate_finished import write

SCORES = {"psnr": 31.3211, "ssim": 0.88231, "ms_ssim": 0.98212}
NUMBERS = {"31.32", "0.8823", "0.9821"}


def printed(table, width):
    """What is printed, as lines."""
    console = Console(file=io.StringIO(), width=width)
    print_table(console, table)
    return console.file.getvalue().splitlines()


def evaluation(name):
    """An evaluation of one set of one image."""
    scores = {"name": "Set5", "scale": 4, **SCORES, "images": [{"name": name, **SCORES}]}
    return {"model": "m", "protocol": "vdsr", "sets": [scores], "failed": [], "notices": []}


@pytest.mark.parametrize(
    "name", ["a", "a_long_name_of_a_photo_from_a_camera_2026-11-29_12h45m", "写" * 30]
)
@pytest.mark.parametrize("width", [20, 30, 36, 40, 60, 80, 200])
def test_no_digit_is_lost_at_any_width(name, width):
    table = next(iter(evaluation_tables(evaluation(name)).values()))
    lines = printed(table, width)
    text = "\n".join(lines)
    found = set(re.findall(r"\d+\.\d+", text))
    assert found <= NUMBERS and "31.32" in found
    assert "…" not in text
    last = lines[-1]
    missing = last.partition("width: ")[2].split(", ") if "not shown" in last else []
    assert len(found) + len(missing) == 3
    assert missing == ["SSIM", "MS-SSIM"][2 - len(missing) :]
    assert not missing or width < 50
    cells = [line.split("│")[1].strip() for line in lines if line.startswith("│")]
    assert "".join(cells).startswith(name)
    if width >= 30:
        assert max(map(len, lines[: len(lines) - bool(missing)])) <= width
    if width == 200:
        assert len(lines) == 7


def test_what_has_room_is_as_rich_prints_it():
    for table in evaluation_tables(evaluation("a")).values():
        ours, plain = printed(table, 80), Console(file=io.StringIO(), width=80)
        plain.print(table)
        assert ours == plain.file.getvalue().splitlines()


def test_every_table_keeps_its_digits(tmp_path, capsys, monkeypatch):
    write(tmp_path / "a_folder_with_a_rather_long_name/photo.png", photo(123, 1357))
    wide = {}
    for columns in (None, 60, 40):
        if columns:
            monkeypatch.setenv("COLUMNS", str(columns))
        for arguments in (
            ["models"],
            ["data", "check", tmp_path / "a_folder_with_a_rather_long_name"],
        ):
            _, out, _ = command.run(capsys, *arguments)
            assert "…" not in out
            numbers = re.findall(r"[\d,]{4,}|\d+\.\d+", out)
            wide.setdefault(arguments[0], numbers)
            assert numbers and set(numbers) <= set(wide[arguments[0]])
            if columns:
                rows = [line for line in out.splitlines() if line[:1] in "│┃"]
                assert max(map(len, rows)) <= columns
    console = Console(file=io.StringIO(), width=40)
    closing_table(console, SCORES, {"bicubic": SCORES, "bilinear": SCORES}, "scores")
    out = console.file.getvalue()
    assert "…" not in out and "not shown, for lack of width: MS-SSIM" in out
    assert {"31.32", "0.8823", "+0.0000"} <= set(re.findall(r"[+]?\d+\.\d+", out))


def test_a_file_gets_the_whole_table(capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    table = Table("name", *("a number",) * 30)
    table.add_row("x" * 100, *("0.1234",) * 30)
    print_table(make_console(), table)
    assert capsys.readouterr().out.count("0.1234") == 30


def test_the_comparison_keeps_its_digits(tmp_path):
    for name in ("Set5", "Set14", "B100"):
        write(tmp_path / f"sets/{name}/hr/a.png", photo(24, 24))
        write(tmp_path / f"a_method_with_a_long_name/{name}/a.png", photo(24, 24, seed=1))
    folder = tmp_path / "a_method_with_a_long_name"
    result = isr_jax.evaluate("bicubic", tmp_path / "sets", scale=2, against=[folder])
    lines = printed(evaluation_tables(result)["Mean PSNR (dB)/SSIM: vdsr"], 48)
    assert lines[-1] == "not shown, for lack of width: Set14 x2"
    assert len(re.findall(r"\d+\.\d\d/-?0\.\d{4}", "\n".join(lines))) == 4
