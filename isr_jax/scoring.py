"""Scores of SR images: the metrics that tables, plots and reports know, and the one scorer.

Validation, the loss study and `isr evaluate` all score by `Scorer`. To add a metric: its function,
its value in `Scorer._scores`, and its line in METRICS.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8, UInt16

from isr_jax.errors import UserError
from isr_jax.protocols import Pixels, Scores, crop_of, measure, measure_interpolation
from isr_jax.resize import resize_uint8, resize_uint16

# (sr, hr, *, crop) -> distance, as perceptual.inputs.ImageDistance
Distance = Callable[..., float]
# (sr, *, crop) -> score, as perceptual.niqe.Niqe
Quality = Callable[..., float]


class Metric(NamedTuple):
    """How a metric is written.

    Attributes:
        heading: in tables, for any protocol.
        luma: the heading of scores on luma alone, as by all protocols but rgb and ntire-esr.
        unit: behind a value, such as " dB".
        decimals: as the literature prints it.
        sign: 1 where higher is better, -1 where lower is.
    """

    heading: str
    luma: str
    unit: str
    decimals: int
    sign: int

    def number(self, value: float) -> str:
        """Return a value, rounded; "-" where there is none (nan)."""
        return "-" if math.isnan(value) else f"{value:.{self.decimals}f}"

    def score(self, value: float) -> str:
        """Return the luma heading with a value and its unit."""
        return f"{self.luma} {self.number(value)}{self.unit}"

    def gain(self, difference: float) -> str:
        """Return a difference with its sign; "-" where there is none (nan)."""
        return "-" if math.isnan(difference) else f"{difference:+.{self.decimals}f}"

    def titled(self, *, luma: bool) -> str:
        """Return the heading with the unit in parentheses."""
        heading = self.luma if luma else self.heading
        return f"{heading} ({self.unit.strip()})" if self.unit else heading


METRICS: dict[str, Metric] = {
    "psnr": Metric("PSNR", "PSNR-Y", " dB", 2, 1),
    "ssim": Metric("SSIM", "SSIM-Y", "", 4, 1),
    "ms_ssim": Metric("MS-SSIM", "MS-SSIM", "", 4, 1),
    "lpips": Metric("LPIPS", "LPIPS", "", 4, -1),
    "dists": Metric("DISTS", "DISTS", "", 4, -1),
    "niqe": Metric("NIQE", "NIQE", "", 3, -1),
}


LATEST = "latest"  # of train.keep_best: the checkpoints are not compared


def merit_by(name: str) -> Callable[[Mapping[str, float]], float]:
    """Return a function of scores that is the higher, the better they are by one metric.

    It is -inf for scores that lack the metric or have none (nan).
    """

    def merit(scores: Mapping[str, float]) -> float:
        value = scores.get(name, math.nan)
        return -math.inf if math.isnan(value) else METRICS[name].sign * value

    return merit


class Scorer(NamedTuple):
    """Scores images of one scale under one protocol.

    Attributes:
        scale: the scale factor.
        protocol: a name in `protocols.PROTOCOLS`.
        lpips: LPIPS, which is then a metric too.
        dists: DISTS, likewise.
        niqe: NIQE of the SR image alone, likewise.
    """

    scale: int
    protocol: str = "vdsr"
    lpips: Distance | None = None
    dists: Distance | None = None
    niqe: Quality | None = None

    @property
    def crop(self) -> int:
        """The pixels cropped from each side."""
        return crop_of(self.protocol, scale=self.scale)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of what it scores, keys of METRICS."""
        extras = {"lpips": self.lpips, "dists": self.dists, "niqe": self.niqe}
        return (*Scores._fields, *(name for name, function in extras.items() if function))

    def image(self, sr: Pixels, hr: Pixels) -> dict[str, float]:
        """Score an SR image against its HR image, by metric.

        Where an image is too small for a metric, its score is nan (psnr inf where identical).

        Raises:
            UserError: the images cannot be compared; see `protocols.measure`.
        """
        return self._scores(measure(sr, hr, crop=self.crop, protocol=self.protocol), sr, hr)

    def interpolation(
        self,
        lr: UInt8[np.ndarray, "lh lw *c"] | UInt16[np.ndarray, "lh lw *c"],
        hr: Pixels,
        *,
        method: str = "bicubic",
    ) -> dict[str, float]:
        """Score the interpolation of an LR image, as published tables do; see `image`."""
        scores = measure_interpolation(
            lr, hr, scale=self.scale, method=method, protocol=self.protocol
        )
        resize = resize_uint8 if lr.dtype == np.uint8 else resize_uint16
        return self._scores(scores, lambda: resize(lr, scale=self.scale, method=method), hr)

    def _scores(
        self, scores: Scores, sr: np.ndarray | Callable[[], np.ndarray], hr: np.ndarray
    ) -> dict[str, float]:
        row: dict[str, float] = scores._asdict()
        if not (self.lpips or self.dists or self.niqe):
            return row
        image = sr() if callable(sr) else sr
        for name, distance in (("lpips", self.lpips), ("dists", self.dists)):
            if distance:
                row[name] = _or_nan(distance, image, hr, crop=self.crop)
        if self.niqe:
            row["niqe"] = _or_nan(self.niqe, image, crop=self.crop)
        return row


def _or_nan(metric: Callable[..., float], *images: np.ndarray, crop: int) -> float:
    """Return a score; nan of images too small for the metric, which have been compared already."""
    try:
        return metric(*images, crop=crop)
    except UserError:
        return math.nan


def make_scorer(
    *,
    scale: int,
    protocol: str = "vdsr",
    lpips: Distance | None = None,
    dists: Distance | None = None,
    niqe: Quality | None = None,
) -> Scorer:
    """Return a `Scorer`.

    Raises:
        UserError: the protocol is unknown.
    """
    scorer = Scorer(scale, protocol, lpips, dists, niqe)
    crop_of(protocol, scale=scale)
    return scorer


def means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of each metric over images, of the scores that are not nan."""
    return {name: _mean([row[name] for row in rows]) for name in rows[0]} if rows else {}


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan
