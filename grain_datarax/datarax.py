"""Chains in pipelines of the package datarax. Needs the extra `datarax`, as nothing else here does."""

from typing import Any

import jax
import jax.numpy as jnp
from datarax.core.config import OperatorConfig  # pyright: ignore[reportMissingImports]
from datarax.core.operator import OperatorModule, require_key  # pyright: ignore[reportMissingImports]
from flax import nnx

from grain_datarax.chain import Chain
from grain_datarax.seeding import RECORD_SEED
from grain_datarax.transforms import AugmentRecord, augment
from grain_datarax.wording import shown


class ChainOperator(OperatorModule):  # pyright: ignore[reportUntypedBaseClass]
    """A chain as an operator of datarax: a stage of its `Pipeline`, or a part of its composites.

    Each record draws from the chain's seed, its epoch and its index, so that it gets the same pixels in any batch and
    in any order, as with datarax's own operators. They are not those of a Grain pipeline, whose records have other
    seeds. Images keep their type: `uint8` stays `uint8`.

    Args:
      chain: The chain.
      name: A name, as all of datarax's modules have it.

    Raises:
      TypeError: If it is no `Chain`.

    Example, of a `datarax.Pipeline`:

        chain = gdx.Chain([gdx.PatchDropout(num_patches=4, patch_size=(16, 16))], seed=0)
        pipeline = Pipeline(source=source, stages=[ChainOperator(chain)], batch_size=256, rngs=nnx.Rngs(0))
    """

    def __init__(self, chain: Chain, *, name: str | None = None) -> None:
        if not isinstance(chain, Chain):
            raise TypeError(f"`chain` must be a Chain: got {shown(chain)}. Pass Chain([...], seed=0).")
        config = OperatorConfig(stochastic=True, stream_name="augment")
        super().__init__(config, rngs=nnx.Rngs(augment=0), name=name)
        self.chain = nnx.static(chain)

    def apply(
        self, data: dict[str, Any], state: Any, metadata: Any, key: jax.Array | None = None, stats: Any = None
    ) -> tuple[dict[str, Any], Any, Any]:
        """One record, augmented; `key` is the record's."""
        del stats
        seed = jax.random.bits(require_key(key, self), (1, 2), jnp.uint32)
        batch = {**jax.tree.map(lambda leaf: leaf[None], data), RECORD_SEED: seed}
        return jax.tree.map(lambda leaf: leaf[0], augment(self.chain, batch)), state, metadata

    def output_spec(self, input_spec: Any) -> Any:
        """The spec of what comes out."""
        return AugmentRecord(self.chain).output_spec(input_spec)
