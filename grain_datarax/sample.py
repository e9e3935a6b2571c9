"""A picture as a chain takes it, in its own axes, channels and values; and one that is made here, to show chains on."""

import contextlib
import dataclasses

import numpy as np

from grain_datarax.chain import Chain
from grain_datarax.effects.conversion import Normalize
from grain_datarax.pictures import drawing_module, preview

# As most photographs come to models, so that patches are as large as they will be.
_SIZE = 224


def chain_png(chain: Chain) -> bytes | None:
    """The chain at work on `sample_picture`, as a PNG file; None where that can't be drawn, or matplotlib lacks."""
    # Whatever goes wrong: to look at a chain is never an error.
    with contextlib.suppress(Exception):
        picture, other = (as_taken(each, chain) for each in (sample_picture(), sample_picture()[::-1, :, ::-1]))
        of_one = dataclasses.replace(chain, image=chain.images[0])
        record = {of_one.images[0]: picture, of_one.partner_of(of_one.images[0]): other}
        png: bytes = drawing_module().as_png(preview(of_one, record))
        return png
    return None


def sample_picture() -> np.ndarray:
    """Something in which noise, patches, flips and colours can be seen: `uint8 (224, 224, 3)`.

    Example:
      >>> sample_picture().shape, sample_picture().dtype
      ((224, 224, 3), dtype('uint8'))
    """
    y, x = np.mgrid[:_SIZE, :_SIZE] / _SIZE

    def box(left: float, right: float, top: float, bottom: float) -> np.ndarray:
        inside: np.ndarray = (x >= left) & (x < right) & (y >= top) & (y < bottom)
        return inside

    letter_f = box(0.12, 0.22, 0.1, 0.62) | box(0.12, 0.5, 0.1, 0.2) | box(0.12, 0.4, 0.32, 0.42)
    stripes, steps = box(0, 0.5, 0.74, 1) & (x * 32 % 2 < 1), box(0.5, 1, 0.74, 1)
    picture = np.stack([0.2 + 0.6 * x, 0.35 + 0.3 * y, 0.85 - 0.5 * x], axis=-1)
    picture[(x - 0.74) ** 2 + (y - 0.3) ** 2 < 0.17**2] = 1.0, 0.82, 0.2
    picture[stripes] = 0.15, 0.2, 0.35
    picture[letter_f] = 0.97
    picture[steps] = np.floor((x[steps, None] - 0.5) * 12) / 5  # from black to white
    return np.round(255 * picture).astype(np.uint8)


def as_taken(picture: np.ndarray, chain: Chain) -> np.ndarray:
    """A picture in the axes of a chain's images, with as many channels and in the type that they have to have.

    Args:
      picture: `(H, W)`, or `(H, W, C)`, `uint8` or `uint16`.
      chain: The chain. Where it names channels, or normalises some, the picture's own are repeated or left out.
        Frames are one.

    Returns:
      The picture's own type, where that has the chain's value range; else `float32` in that range.

    Example:
      >>> import grain_datarax as gdx
      >>> as_taken(sample_picture(), gdx.Chain([gdx.GaussianNoise()], seed=0, axes="TCHW")).shape
      (1, 3, 224, 224)
    """
    image = picture if picture.ndim == 3 else picture[..., None]
    if "C" not in chain.axes:
        image = np.round(image.mean(axis=-1)).astype(picture.dtype)
    else:
        image = image[..., np.arange(_channels(chain, image.shape[-1])) % image.shape[-1]]
        image = np.moveaxis(image, -1, 0) if chain.axes.endswith("CHW") else image
    most = np.iinfo(picture.dtype).max
    if chain.value_range not in (None, (0, most)):
        low, high = chain.value_range or (0.0, 1.0)
        image = (low + image / most * (high - low)).astype(np.float32)
    return image[None] if chain.axes.startswith("T") else image


def _channels(chain: Chain, own: int) -> int:
    """How many channels the chain takes, of a picture that has so many."""
    sizes = [np.size(each) for link in chain.links if isinstance(link, Normalize) for each in (link.mean, link.std)]
    if max(sizes, default=1) > 1:
        return max(sizes)
    return max([own, *(channel + 1 for channel in chain.channels or ())])
