"""Patch dropout as the reference page has it: the law is `grain_datarax.effects.patch_dropout`."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from grain_datarax.effects.patch_dropout import patch_positions
from grain_datarax.effects.patches import drop_patches, why_no_room
from grain_datarax.effects.settings import Integer, Number, Size
from grain_datarax.images import Scale, own_scale, require_fraction, warn_of_layout
from grain_datarax.pages.modality import ModalityOperator, ModalityOperatorConfig
from grain_datarax.pages.units import require_finite


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
        self._require(
            num_patches=Integer(0, 2**24), patch_size=Size(), drop_value=Number(-np.inf, np.inf, "not be NaN")
        )


class PatchDropoutOperator(ModalityOperator):
    """Drops random patches of an image; see `patch_dropout`.

    Draws `patch_positions`, int32 `(num_patches, 2)` for each record: the patches' top-left corners as (y, x).

    Args:
      config: The settings.
      rngs: The rng streams.
      name: See `DataraxModule`.

    Example:
      >>> from flax import nnx
      >>> import jax.numpy as jnp
      >>> config = PatchDropoutOperatorConfig(field_key="image", num_patches=1, patch_size=(2, 2))
      >>> operator = PatchDropoutOperator(config, rngs=nnx.Rngs(0))
      >>> result, state, metadata = operator.apply({"image": jnp.ones((4, 4, 3))}, {}, {})
      >>> float(result["image"].sum())
      36.0
    """

    config: PatchDropoutOperatorConfig  # pyright: ignore[reportIncompatibleVariableOverride]
    keeps_scale = True

    @property
    def namespace(self) -> str:
        """The operator's name, or else its class with the number and the size of its patches."""
        height, width = self.config.patch_size
        return self.name or f"{type(self).__name__}/{self.config.num_patches}x{height}x{width}"

    def param_ranges(self, shape: tuple[int, ...]) -> Mapping[str, tuple[Any, Any]]:
        return {"patch_positions": (0, np.subtract(shape[:2], self.config.patch_size))}

    def scale(self, dtype: Any) -> Scale:
        """As `ModalityOperator.scale`; a `drop_value` of 0 is 0 for signed integers without `clip_range`, too."""
        if self.config.clip_range is None and self.config.drop_value == 0:
            return own_scale(dtype)
        return super().scale(dtype)

    def draw(self, key: jax.Array, shape: tuple[int, ...]) -> dict[str, jax.Array]:
        config = self.config
        positions = patch_positions(key, shape, num_patches=config.num_patches, patch_size=config.patch_size)
        return {"patch_positions": positions}

    def effect(self, image: jax.Array, params: dict[str, jax.Array]) -> jax.Array:
        scale = self.scale(image.dtype)
        value = scale.value(self.config.drop_value, image.dtype)
        positions = params["patch_positions"]
        return scale.clip(drop_patches(image, positions, patch_size=self.config.patch_size, value=value))

    def check_dtype(self, dtype: np.dtype, path: str) -> None:
        super().check_dtype(dtype, path)
        require_fraction("drop_value", self.config.drop_value, dtype)
        require_finite("drop_value", self.config.drop_value, dtype)

    def untreatable(self, shape: tuple[int, ...]) -> str | None:
        if problem := super().untreatable(shape):
            return problem
        instead = ", or validate_domain_constraints=False to pass such images through"
        field = self.config.field_key
        problem = why_no_room(self.config.patch_size, shape, f'field "{field}" of shape {shape}', instead)
        if problem is None:
            warn_of_layout(shape, field)
        return problem
