"""Sources made of others: in gray, for generators of one channel, and with images at more sizes."""

import dataclasses
from collections.abc import Callable, Sequence

from isr_jax.data.examples import Decoded, fit
from isr_jax.data.sources import SeveralSources, Source
from isr_jax.images import rgb_to_gray
from isr_jax.resize import resize_uint8, resize_uint16


@dataclasses.dataclass(frozen=True)
class DerivedSource:
    """The images of another source, as they are."""

    source: Source

    @property
    def name(self) -> str:
        """That of the source."""
        return self.source.name

    @property
    def scale(self) -> int:
        """That of the source."""
        return self.source.scale

    @property
    def faults(self) -> tuple[str, ...]:
        """Those of the source."""
        return self.source.faults

    def __len__(self) -> int:
        return len(self.source)

    def load(self, i: int) -> Decoded:
        """Decode image `i`, as its source does."""
        return self.source.load(i)

    def paired(self, i: int) -> bool:
        """Return whether image `i` has an LR image of its own."""
        return self.source.paired(i)

    def area(self, i: int) -> int:
        """Return the number of HR pixels of image `i`."""
        return self.source.area(i)

    def fingerprint(self) -> str:
        """Return that of the source, whose files are read."""
        return self.source.fingerprint()


class GraySource(DerivedSource):
    """The images of another source in gray, [h, w, 1]: their luma, as `rgb_to_gray` has it.

    Gray files keep their values. LR images that are made are made of the gray HR image.
    """

    def load(self, i: int) -> Decoded:
        """Decode image `i`, as its source does, and return its luma."""
        photo = self.source.load(i)
        lr = None if photo.lr is None else rgb_to_gray(photo.lr)
        return photo._replace(hr=rgb_to_gray(photo.hr), lr=lr)


@dataclasses.dataclass(frozen=True)
class ResizedSource(DerivedSource):
    """The images of another source, and all of them once more at each of some smaller sizes.

    Those have no LR images of their own. They are made by bicubic interpolation, which leaves less
    noise and fewer traces of compression than a photo has at full size.

    Attributes:
        source: of the images at their own size.
        factors: of height and width, each in (0, 1).
        least: no image becomes smaller, in HR pixels.

    Source: Dong, Loy & Tang 2016 (FSRCNN), section 4.1, with factors of 0.9, 0.8, 0.7 and 0.6.
    """

    factors: tuple[float, ...]
    least: int

    def __len__(self) -> int:
        return len(self.source) * (1 + len(self.factors))

    def _place(self, i: int) -> tuple[float, int]:
        """Return the factor of image `i`, and its number in the source."""
        turn, j = divmod(i, len(self.source))
        return (1.0, *self.factors)[turn], j

    def load(self, i: int) -> Decoded:
        """Decode image `i`, and resize it."""
        factor, j = self._place(i)
        photo = self.source.load(j)
        h, w = photo.hr.shape[:2]
        factor = max(factor, self.least / min(h, w))
        if factor >= 1:
            return photo
        resize = resize_uint8 if photo.hr.dtype == "uint8" else resize_uint16
        hr = resize(photo.hr, size=(round(h * factor), round(w * factor)))
        return fit(f"{photo.name} at {factor:.2g}", hr, None, scale=self.scale)

    def paired(self, i: int) -> bool:
        """Return whether image `i` has its own size, and an LR image of its own."""
        factor, j = self._place(i)
        return factor == 1 and self.source.paired(j)

    def area(self, i: int) -> int:
        """Return about the number of HR pixels of image `i`."""
        factor, j = self._place(i)
        return round(factor**2 * self.source.area(j))

    def fingerprint(self) -> str:
        """Return that of the source, and the factors."""
        return f"{self.source.fingerprint()} at {(1.0, *self.factors)}"


def in_gray(source: Source) -> Source:
    """Return a source in gray."""
    return _of_each(source, GraySource)


def at_sizes(source: Source, factors: Sequence[float], *, least: int) -> Source:
    """Return a source with its images at more sizes; see `ResizedSource`."""
    return _of_each(source, lambda part: ResizedSource(part, tuple(factors), least))


def _of_each(source: Source, derived: Callable[[Source], Source]) -> Source:
    """Return what is made of a source; of several, of each, which stay apart for their weights."""
    if isinstance(source, SeveralSources):
        return dataclasses.replace(source, parts=tuple(map(derived, source.parts)))
    return derived(source)
