"""Sources in gray, for generators of one channel."""

import dataclasses

from isr_jax.data.examples import Decoded
from isr_jax.data.sources import SeveralSources, Source
from isr_jax.images import rgb_to_gray


@dataclasses.dataclass(frozen=True)
class GraySource:
    """The photographs of another source in gray, [h, w, 1]: their luma, as `rgb_to_gray` has it.

    Gray files keep their values. LR images that are made are made of the gray HR image.
    """

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
        """Decode image `i`, as its source does, and return its luma."""
        photo = self.source.load(i)
        lr = None if photo.lr is None else rgb_to_gray(photo.lr)
        return photo._replace(hr=rgb_to_gray(photo.hr), lr=lr)

    def paired(self, i: int) -> bool:
        """Return whether image `i` has an LR image of its own."""
        return self.source.paired(i)

    def area(self, i: int) -> int:
        """Return the number of HR pixels of image `i`."""
        return self.source.area(i)

    def fingerprint(self) -> str:
        """Return that of the source, whose files are read."""
        return self.source.fingerprint()


def in_gray(source: Source) -> Source:
    """Return a source in gray; each part of several, which stay apart for their weights."""
    if isinstance(source, SeveralSources):
        return dataclasses.replace(source, parts=tuple(map(in_gray, source.parts)))
    return GraySource(source)
