"""Patch dropout: rectangles of an image are filled with one value.

It fills pixels, as ViT occlusion studies do; it drops no tokens and saves no compute (unlike PatchDropout, Liu et al.,
WACV 2023), and its patches stay inside the image (unlike cutout, DeVries & Taylor 2017).
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from grain_datarax.operators.modality import ModalityOperator, ModalityOperatorConfig
from grain_datarax.operators.units import clip_image, require_fraction, to_image_value
from grain_datarax.random.bits import uniform_integers
from grain_datarax.random.keys import as_stream_key

# Patches that cover at most one part in this many of an image are scattered: more are cheaper as a mask.
_SMALL = 8


def patch_dropout(
    key: jax.Array, image: jax.Array, *, num_patches: int, patch_size: tuple[int, int], drop_value: float = 0.0
) -> jax.Array:
    """Fills `num_patches` rectangles at random places with `drop_value`.

    Args:
      key: One PRNG key; the same key gives the same places.
      image: `(H, W)` or `(H, W, C)`, integer or floating point.
      num_patches: How many patches; they may overlap.
      patch_size: Their height and width in pixels, at most the image's.
      drop_value: In image units for a floating-point image, a fraction of full scale for an integer one.

    Returns:
      An image of the same shape and dtype.

    Raises:
      ValueError: If a patch does not fit, or `drop_value` is no fraction for an integer image.

    Example:
      >>> image = patch_dropout(jax.random.key(0), jnp.ones((8, 8)), num_patches=1, patch_size=(2, 3))
      >>> int(image.size - image.sum())
      6

    Source: the top-left corner is uniform over all places at which the patch lies inside the image.
    """
    require_fraction("drop_value", drop_value, image.dtype)
    if not (patch_size[0] <= image.shape[0] and patch_size[1] <= image.shape[1]):
        raise ValueError(
            f"`patch_size` must fit inside the image: got {patch_size} for shape {image.shape}. Shrink it."
        )
    positions = patch_positions(as_stream_key(key), image.shape, num_patches=num_patches, patch_size=patch_size)
    return drop_patches(image, positions, patch_size=patch_size, drop_value=drop_value)


def patch_positions(
    key: jax.Array, shape: tuple[int, ...], *, num_patches: int, patch_size: tuple[int, int]
) -> jax.Array:
    """The top-left corners of the patches in an image of this shape: int32 `(num_patches, 2)`, as (y, x)."""
    room = np.subtract(shape[:2], patch_size) + 1
    return uniform_integers(key, (num_patches, 2), room[None])


def drop_patches(
    image: jax.Array, positions: jax.Array, *, patch_size: tuple[int, int], drop_value: float = 0.0
) -> jax.Array:
    """Fills the patches with these top-left corners; what hangs over the edge is cut off."""
    value = jnp.asarray(to_image_value(drop_value, image.dtype), image.dtype)
    height, width = patch_size
    if _SMALL * len(positions) * height * width <= image.shape[0] * image.shape[1]:
        # A scatter touches nothing but the patches: in place, where the image's buffer is donated.
        row = positions[:, 0, None, None] + jnp.arange(height)[None, :, None]
        column = positions[:, 1, None, None] + jnp.arange(width)[None, None, :]
        return image.at[row, column].set(value, mode="drop", wrap_negative_indices=False)
    top, left = positions[:, 0, None], positions[:, 1, None]
    row, column = jnp.arange(image.shape[0])[None, :], jnp.arange(image.shape[1])[None, :]
    in_rows = (top <= row) & (row < top + height)
    in_columns = (left <= column) & (column < left + width)
    dropped = jnp.any(in_rows[:, :, None] & in_columns[:, None, :], axis=0)
    return jnp.where(dropped.reshape(dropped.shape + (1,) * (image.ndim - 2)), value, image)


@dataclasses.dataclass(frozen=True)
class PatchDropoutOperatorConfig(ModalityOperatorConfig):
    """Settings of patch dropout.

    Attributes:
      num_patches: How many patches; 0 drops none.
      patch_size: Their height and width in pixels.
      drop_value: What fills them; in image units for a floating-point image, a fraction of full scale for an integer
        one.

    Example:
      >>> PatchDropoutOperatorConfig(field_key="image", num_patches=2, patch_size=(16, 8)).drop_value
      0.0
    """

    num_patches: int = dataclasses.field(default=4, kw_only=True)
    patch_size: tuple[int, int] = dataclasses.field(default=(8, 8), kw_only=True)
    drop_value: float = dataclasses.field(default=0.0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_integer("num_patches", self.num_patches, least=0)
        object.__setattr__(self, "num_patches", int(self.num_patches))
        problem = f"`patch_size` must be two integers: got {self.patch_size!r}. Pass (height, width)."
        if not isinstance(self.patch_size, list | tuple):
            raise TypeError(problem)
        if len(self.patch_size) != 2:
            raise ValueError(problem)
        for length in self.patch_size:
            self._require_integer("patch_size", length, least=1)
        object.__setattr__(self, "patch_size", tuple(map(int, self.patch_size)))
        self._require_number("drop_value", -np.inf, np.inf, "not be NaN")

    def _require_integer(self, name: str, value: int, least: int) -> None:
        if not isinstance(value, int | np.integer) or isinstance(value, bool):
            raise TypeError(f"`{name}` must be an integer: got {value!r}. Pass an int.")
        if value < least:
            raise ValueError(f"`{name}` must be at least {least}: got {value!r}. Pass a larger number.")


class PatchDropoutOperator(ModalityOperator):
    """Drops random patches of an image; see `patch_dropout`.

    Draws `patch_positions`, int32 `(num_patches, 2)` for each record: the patches' top-left corners as (y, x).

    Args:
      config: The settings.
      rngs: The rng streams.
      name: See `DataraxModule`.

    Example:
      >>> from flax import nnx
      >>> config = PatchDropoutOperatorConfig(field_key="image", num_patches=1, patch_size=(2, 2))
      >>> operator = PatchDropoutOperator(config, rngs=nnx.Rngs(0))
      >>> result, state, metadata = operator.apply({"image": jnp.ones((4, 4, 3))}, {}, {})
      >>> float(result["image"].sum())
      36.0
    """

    config: PatchDropoutOperatorConfig
    keeps_scale = True

    @property
    def namespace(self) -> str:
        """The operator's name, or else its class with the number and the size of its patches."""
        height, width = self.config.patch_size
        return self.name or f"{type(self).__name__}/{self.config.num_patches}x{height}x{width}"

    def param_ranges(self, shape: tuple[int, ...]) -> dict[str, tuple[int, np.ndarray]]:
        return {"patch_positions": (0, np.subtract(shape[:2], self.config.patch_size))}

    def draw(self, key: jax.Array, shape: tuple[int, ...]) -> dict[str, jax.Array]:
        config = self.config
        positions = patch_positions(key, shape, num_patches=config.num_patches, patch_size=config.patch_size)
        return {"patch_positions": positions}

    def effect(self, image: jax.Array, params: dict[str, jax.Array]) -> jax.Array:
        config = self.config
        image = drop_patches(
            image, params["patch_positions"], patch_size=config.patch_size, drop_value=config.drop_value
        )
        return clip_image(image, config.clip_range)

    def check_dtype(self, dtype: np.dtype, path: str) -> None:
        super().check_dtype(dtype, path)
        require_fraction("drop_value", self.config.drop_value, dtype)

    def untreatable(self, shape: tuple[int, ...]) -> str | None:
        size, field = self.config.patch_size, self.config.field_key
        if (problem := super().untreatable(shape)) or (size[0] <= shape[0] and size[1] <= shape[1]):
            return problem
        return (
            f'`patch_size` must fit inside the image: got {size} for field "{field}" of shape {shape}. Use a smaller'
            " patch, or validate_domain_constraints=False to pass such images through."
        )
