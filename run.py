"""Train a super-resolution GAN, or run a loss study.

python run.py --config configs/msssim.py [--config.train.steps=2000] [--workdir runs/msssim]
python run.py --config configs/study.py:quick

Run the same command again to resume. Every field of isr_jax/config.py can be overridden. Some
configs have variants, such as configs/esrgan.py:smoke.
"""

import sys
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "A file of configs/, with :VARIANT where it has one.", lock_config=True
)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "The run folder; by default runs/NAME, after the config."
)


def parse(argv: list[str]) -> list[str]:
    """Parse the command line; wrong usage is one line on standard error and exit code 2."""
    try:
        rest = flags.FLAGS(argv)
        if len(rest) > 1:
            raise flags.Error(f"unexpected argument {rest[1]!r}; options are --NAME=VALUE")
        if CONFIG.value is None:
            raise flags.Error("no config given; try --config configs/msssim.py")
        # A file that could not be loaded raises at the first access.
        list(CONFIG.value)
    # A config file is the user's own program, which can raise any of these.
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        fail(_one_line(error), code=2)
    return rest


def _one_line(error: Exception) -> str:
    """Return the message of absl or ml_collections without quoting, line breaks and traceback."""
    lines = str(error).replace("\\n", "\n").replace("\\", "").strip(" '\"\n").splitlines()
    if any(line.strip().startswith("Traceback") for line in lines):
        lines = [lines[0], lines[-1].rpartition("UserError: ")[2]]
    text = " ".join(" ".join(lines).split()).replace("'", "")
    return text.replace(" Did you mean", ": no such config field; did you mean", 1).strip('"')


def fail(message: str, *, code: int) -> None:
    """Print one line to standard error and exit."""
    print(f"run.py: {message}", file=sys.stderr)
    sys.exit(code)


def main(argv: list[str]) -> None:
    """Hand the config to isr_jax.train, or to isr_jax.study if it has a study's fields."""
    # Imported here, so that wrong usage is reported at once.
    from rich.console import Console

    import isr_jax
    from isr_jax import UserError
    from isr_jax.training.record import closing_table

    logging.set_verbosity(logging.ERROR)
    file, _, variant = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")
    name = "-".join(filter(None, (Path(file).stem, variant)))
    workdir = WORKDIR.value or f"runs/{name}"
    try:
        if "study" in CONFIG.value:
            outcome = isr_jax.study(CONFIG.value, workdir)
            if outcome.results:
                print(f"{outcome.results['verdict']}\nThe report is {outcome.run / 'report.html'}")
            return
        result = isr_jax.train(CONFIG.value, workdir)
    except UserError as error:
        fail(str(error), code=1)
    except KeyboardInterrupt:
        fail(
            "interrupted; run the same command again to resume from the latest checkpoint", code=130
        )
    if result.scores:
        title = f"Validation set, {result.step} updates"
        closing_table(Console(), result.scores, result.baselines, title)


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
