"""Settings in the units of the reference pages: the image's own for floats, fractions of full scale for integers."""

import math

import jax
import jax.numpy as jnp

from grain_datarax.images import integer_limits, is_float
from grain_datarax.wording import shown


def require_finite(name: str, value: float | None, dtype: jax.typing.DTypeLike) -> None:
    """Raises `ValueError` if a number would become infinite in a floating-point image of this type."""
    if value is None or not is_float(dtype) or math.isinf(value):
        return
    if abs(value) > float(jnp.finfo(dtype).max):
        raise ValueError(
            f"`{name}` must fit into the type of the image: got {shown(value)} for {jnp.dtype(dtype)}, whose largest is"
            f" {float(jnp.finfo(dtype).max):g}. Pass a smaller number, or convert the image to float32."
        )


def level_bounds(bounds: tuple[float, float], dtype: jax.typing.DTypeLike) -> tuple[int, int]:
    """The integers between two fractions of an unsigned type's full scale; one that float32 has shifted is found."""
    full_scale = integer_limits(dtype)[1]
    low, high = (bound * full_scale for bound in bounds)
    nearest = [round(level) for level in (low, high)]
    close = [abs(level - whole) <= 2**-23 * abs(level) for level, whole in zip((low, high), nearest, strict=True)]
    return (nearest[0] if close[0] else math.ceil(low)), (nearest[1] if close[1] else math.floor(high))
