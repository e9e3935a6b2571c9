"""Effects made of effects: each record takes one of them, some, or all."""

import abc
import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from grain_datarax.effects.effect import Effect
from grain_datarax.effects.settings import Integer, Number, OrRange, Rule, ends
from grain_datarax.random.bits import uniform_integers, uniform_levels
from grain_datarax.random.ranks import ranks
from grain_datarax.wording import shown


class Effects(Rule):
    """One or more effects."""

    def __call__(self, name: str, value: Any) -> tuple[Effect, ...]:
        if not isinstance(value, Sequence) or not all(isinstance(effect, Effect) for effect in value):
            raise TypeError(f"`{name}` must be effects: got {shown(value)}. Pass a list, such as [GaussianNoise()].")
        if not value:
            raise ValueError(
                f"`{name}` must hold at least one effect: got none. Pass a list, such as [GaussianNoise()]."
            )
        return tuple(value)


class Weights(Rule):
    """Numbers that are not negative and not all zero, or None."""

    def __call__(self, name: str, value: Any) -> tuple[float, ...] | None:
        if value is None:
            return None
        if not isinstance(value, list | tuple):
            raise TypeError(f"`{name}` must be numbers: got {shown(value)}. Pass a list, or None for equal ones.")
        weights = tuple(Number(0, rule="be finite and not negative")(name, weight) for weight in value)
        if not 0 < sum(weights) < np.inf:
            raise ValueError(
                f"`{name}` must have a positive and finite sum: got {shown(value)}. Pass a list, or None for equal"
                " ones."
            )
        return weights


@dataclasses.dataclass(frozen=True, repr=False)
class Composition(Effect):
    """Effects that a record takes or does not take, in their order; each draws as it would in the chain itself.

    What a record does not take leaves its bits as they are, and is counted as skipped. On an accelerator it is computed
    all the same, as all records of a batch run through one program.

    Attributes:
      effects: One or more effects, also compositions.
    """

    effects: Annotated[Sequence[Effect], Effects()]
    same_on_frame: bool = dataclasses.field(default=True, kw_only=True)

    replaces = True  # it changes nothing itself

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.same_on_frame:
            raise ValueError(
                f"`same_on_frame` must be True for {type(self).__name__}, which chooses for a whole record: got False."
                " Set it on the effects that it holds."
            )

    @property
    def may_be_padded(self) -> bool:
        """Yes: what it holds says for itself."""
        return True

    @abc.abstractmethod
    def draw(self, key: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
        """Which of the effects a record takes: `bool (effects,)`."""

    def told(self, drawn: jax.Array) -> dict[str, jax.Array]:
        return {"chosen": drawn}

    def image(self, image: jax.Array, drawn: Any) -> jax.Array:
        del drawn  # of the composition itself, whose effects a chain applies one by one
        return image

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "effects": [effect.to_dict() for effect in self.effects]}

    def __repr__(self) -> str:
        settings = [text for text in self.changed() if not text.startswith("effects=")]
        return f"{type(self).__name__}({', '.join([repr(list(self.effects)), *settings])})"


@dataclasses.dataclass(frozen=True, repr=False)
class Sequential(Composition):
    """All of its effects, in their order: one link of a composition, or several under one probability `p`.

    Example:
      >>> import grain_datarax as gdx
      >>> Sequential([gdx.GaussianNoise(), gdx.PatchDropout()], p=0.5)
      Sequential([GaussianNoise(), PatchDropout()], p=0.5)
    """

    def draw(self, key: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
        del key, shape
        return jnp.ones(len(self.effects), bool)


@dataclasses.dataclass(frozen=True, repr=False)
class OneOf(Composition):
    """One of its effects, for each record.

    Attributes:
      weights: How often each is taken in proportion to the others; None: equally often.

    Raises:
      ValueError: If there is not one weight for each effect.

    Example:
      >>> import grain_datarax as gdx
      >>> OneOf([gdx.GaussianNoise(std=(0.05, 0.2)), gdx.PoissonNoise(photons=30)], weights=[3, 1])
      OneOf([GaussianNoise(std=(0.05, 0.2)), PoissonNoise(photons=30.0)], weights=(3.0, 1.0))
    """

    weights: Annotated[Sequence[float] | None, Weights()] = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weights is not None and len(self.weights) != len(self.effects):
            raise ValueError(
                f"`weights` must hold one for each effect: got {len(self.weights)} for {len(self.effects)} effects."
                " Pass as many, or None for equal ones."
            )

    def draw(self, key: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
        del shape
        weights = np.array(self.weights or [1.0] * len(self.effects))
        bounds = (weights.cumsum() / weights.sum()).astype(np.float32)[:-1]
        place = (uniform_levels(key, ()) >= bounds).sum(dtype=jnp.int32)
        chosen: jax.Array = place == np.arange(len(weights))
        return chosen


@dataclasses.dataclass(frozen=True, repr=False)
class SomeOf(Composition):
    """Some of its effects, for each record, in their order; all choices of as many are equally likely.

    Attributes:
      count: How many, or a range `(low, high)` of which each record draws its own number.

    Raises:
      ValueError: If there are fewer effects than that.

    Example:
      >>> import grain_datarax as gdx
      >>> SomeOf([gdx.GaussianNoise(), gdx.PatchDropout(), gdx.PoissonNoise(photons=30)], count=(0, 2))
      SomeOf([GaussianNoise(), PatchDropout(), PoissonNoise(photons=30.0)], count=(0, 2))
    """

    count: Annotated[int | tuple[int, int], OrRange(Integer(least=0))] = dataclasses.field(default=1, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if ends(self.count)[1] > len(self.effects):
            raise ValueError(
                f"`count` must be at most {len(self.effects)}, the number of effects: got {self.count}. Pass a smaller"
                " number."
            )

    def draw(self, key: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
        del shape
        least, most = ends(self.count)
        count = least + uniform_integers(jax.random.fold_in(key, 1), (1,), np.array([most - least + 1]))
        chosen: jax.Array = ranks(uniform_levels(key, (len(self.effects),))) < count
        return chosen
