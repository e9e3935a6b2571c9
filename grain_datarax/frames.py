"""One effect on one record, all frames or each: what it draws, and what becomes of its images and masks."""

from collections.abc import Callable, Mapping
from typing import Any

import jax

from grain_datarax.effects.effect import Effect
from grain_datarax.effects.geometric import Geometric
from grain_datarax.effects.mixing import Mixing
from grain_datarax.purity import same_each_time
from grain_datarax.random.sized import sized_key


def drawn_by(
    effect: Effect,
    keys: Mapping[str, jax.Array],
    shape: tuple[int, int, int],
    frames: tuple[int, ...],
    size: jax.Array | None,
) -> Any:
    """What one record draws for images `(H, W, C)`, of this size without their padding: its strengths, and what the
    effect draws with these; by frame, if frames draw apart.
    """

    def draw(keys: Mapping[str, jax.Array]) -> Any:
        def key(name: str) -> jax.Array:
            return keys[name] if size is None else sized_key(keys[name], size, shape[:2])

        strengths = {name: effect.draw_setting(name, key(name), shape) for name in effect.drawn_settings}
        drawing = effect.with_strengths(strengths)
        return strengths, same_each_time("draw", lambda: drawing.sample(keys[""], shape, size))

    # The axis of one keeps XLA's CPU fusion from hashing in its loops over channels, which are not vectorised, and from
    # compiling keys of keys of keys for minutes.
    def along_an_axis_of_one(keys: Mapping[str, jax.Array]) -> Any:
        return jax.tree.map(lambda rows: rows[0], jax.vmap(draw)(jax.tree.map(lambda key: key[None], keys)))

    def of_one(keys: Mapping[str, jax.Array]) -> Any:
        return jax.lax.platform_dependent(dict(keys), cpu=along_an_axis_of_one, default=draw)

    if frames and not effect.same_on_frame:
        return jax.vmap(of_one)({name: jax.random.split(key, frames[0]) for name, key in keys.items()})
    return of_one(keys)


def told_by(effect: Effect, drawn: Any, has_frames: bool) -> dict[str, jax.Array]:
    """What an effect tells of its draw, or of those of its frames."""

    def tell(drawn: Any) -> dict[str, jax.Array]:
        strengths, draw = drawn
        small = {name: value for name, value in strengths.items() if value.ndim < 3}  # which noise that fills is not
        return {**small, **effect.with_strengths(strengths).told(draw)}

    apart = has_frames and not effect.same_on_frame and jax.tree.leaves(drawn)
    return jax.vmap(tell)(drawn) if apart else tell(drawn)


def by_frame(
    effect: Effect, treat: Callable[..., jax.Array], field: jax.Array, partner: jax.Array | None, drawn: Any
) -> jax.Array:
    """Treats a field `(H, W, C)`, or each frame of `(T, H, W, C)`, with what was drawn for it."""
    if field.ndim == 3:
        return treat(field, partner, drawn)
    of_draws = None if effect.same_on_frame else 0
    by_frame: Callable[..., jax.Array] = jax.vmap(treat, in_axes=(0, None if partner is None else 0, of_draws))
    return by_frame(field, partner, drawn)


def treated_image(
    effect: Effect, image: jax.Array, partner: jax.Array | None, drawn: Any, *, scale: Any, in_place: bool
) -> jax.Array:
    """One image `(H, W, C)`, treated; raises `TypeError` unless it has the shape and the dtype that it is to have."""
    strengths, drawn = drawn
    effect = effect.with_strengths(strengths)
    if isinstance(effect, Mixing):
        assert partner is not None
        return _kept("image", effect, image, effect.mixed(image, partner, drawn, scale))
    treat = effect.pixels_in_place if in_place else effect.pixels
    spec = effect.spec(jax.ShapeDtypeStruct(image.shape, image.dtype))
    return _kept("image", effect, spec, same_each_time("image", lambda: treat(image, drawn, scale)))


def treated_mask(
    effect: Effect, mask: jax.Array, partner: jax.Array | None, drawn: Any, *, fill: float | None
) -> jax.Array:
    """One mask `(H, W, C)`, treated; raises `TypeError` unless it has the image's size, and keeps its dtype."""
    strengths, drawn = drawn
    effect = effect.with_strengths(strengths)
    if isinstance(effect, Mixing) and partner is not None:
        return _kept("mask", effect, mask, effect.mixed_mask(mask, partner, drawn))
    shape = effect.spec(jax.ShapeDtypeStruct(mask.shape, mask.dtype)).shape
    return _kept("mask", effect, jax.ShapeDtypeStruct(shape, mask.dtype), effect.mask(mask, drawn, fill))


def moved_hidden(effect: Geometric, hidden: jax.Array, partner: None, drawn: Any) -> jax.Array:
    """Which pixels can't be seen, moved."""
    del partner
    return effect.hidden(hidden, drawn[1])


def _kept(what: str, effect: Effect, before: jax.Array | jax.ShapeDtypeStruct, after: Any) -> jax.Array:
    if not isinstance(after, jax.Array) or (after.shape, after.dtype) != (before.shape, before.dtype):
        given = f"{after.dtype}{list(after.shape)}" if isinstance(after, jax.Array) else type(after).__name__
        raise TypeError(
            f"`{type(effect).__name__}` must make an array of {before.dtype}{list(before.shape)} of its {what}: got"
            f" {given}. Return it in its shape and type."
        )
    return after
