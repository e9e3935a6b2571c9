"""seeded records -> augmented records, host batch -> augmented batch: operators as Grain transforms."""

import contextlib
import dataclasses
import logging
import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from grain_datarax.operators.chain import augment_batch, namespaces
from grain_datarax.operators.fields import field_names, flatten, get_field, set_fields
from grain_datarax.operators.modality import ModalityOperator
from grain_datarax.seeding import RECORD_SEED, draw_seed, require_mapping

_log = logging.getLogger(__name__)


def as_chain(operators: ModalityOperator | Sequence[ModalityOperator]) -> tuple[ModalityOperator, ...]:
    """One operator or several as a tuple; raises `TypeError` for anything else, and `ValueError` for none."""
    chain = tuple(operators) if isinstance(operators, Sequence) else (operators,)
    for operator in chain:
        if not isinstance(operator, ModalityOperator):
            raise TypeError(
                f"`operators` must be operators: got {operator!r:.80}. Pass one ModalityOperator or a list."
            )
    if not chain:
        raise ValueError(f"`operators` must hold at least one operator: got {operators!r}. Pass one or a list.")
    return chain


def augment(
    operators: ModalityOperator | Sequence[ModalityOperator], batch: Mapping[str, Any], *, keep_seed: bool = False
) -> dict[str, Any]:
    """Applies operators to a batch inside a function of one's own, such as a training step: `AugmentBatch`, but pure.

    Records get the pixels that they get anywhere else. Nothing is counted or kept: the operators stay as they are. It
    works under `jax.jit`, `nnx.jit`, `jax.shard_map`, `jax.grad` and in the body of `jax.lax.scan`. Inside `jax.jit`
    over several devices prefer operators with `batch_strategy="vmap"`: JAX gathers a batch that it is to scan.

    Args:
      operators: One operator or a list of them, applied in that order.
      batch: A batch: images `(B, H, W)` or `(B, H, W, C)`, `record_seed` uint32 `(B, 2)`, and anything else. It comes
        from `DeviceLoader(source, keep_seed=True)`, for example.
      keep_seed: Keep `record_seed` in the batch.

    Returns:
      A new dict of the same fields without `record_seed`.

    Raises:
      As `AugmentBatch` and its `map`.

    Example:
      >>> import grain_datarax as gdx
      >>> noise = gdx.NoiseOperator(gdx.NoiseOperatorConfig(field_key="image", stochastic=True), rngs=nnx.Rngs(0))
      >>> batch = {"image": jnp.full((4, 8, 8, 3), 0.5), "record_seed": jnp.zeros((4, 2), jnp.uint32)}
      >>> loss = jax.jit(lambda scale: (scale * augment(noise, batch)["image"]).mean())
      >>> loss(2.0).shape
      ()
    """
    return AugmentBatch(nnx.clone(as_chain(operators)), keep_seed=keep_seed).map(batch)


class _Augment:
    """A chain of operators, and the backend that it runs on."""

    def __init__(self, operators: ModalityOperator | Sequence[ModalityOperator]) -> None:
        chain = as_chain(operators)
        self._operators: tuple[ModalityOperator, ...] | _Packed = chain
        self._names = namespaces(chain)
        self._values_checked = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._names})"

    def __getstate__(self) -> dict[str, Any]:
        # A JAX array would start the accelerator in the worker that unpickles it.
        packed = self._operators if isinstance(self._operators, _Packed) else _pack(self._operators)
        return {**vars(self), "_operators": packed}

    def _chain(self) -> tuple[ModalityOperator, ...]:
        if isinstance(self._operators, _Packed):
            self._operators = _unpack(self._operators)
        return self._operators

    def check_values(self, data: Mapping[str, Any]) -> None:
        """Looks at the first host data only, and at no field that an earlier operator may bring to another scale."""
        if self._values_checked:
            return
        on_host, seen = set(flatten(data)), True
        for operator in self._chain():
            if operator.config.field_key in on_host:
                seen &= operator.check_values(data)
            if not operator.keeps_scale or operator.config.target_key is not None:
                on_host -= set(operator.writes)
        self._values_checked = seen

    def output_spec(self, input_spec: Mapping[str, Any]) -> dict[str, Any]:
        """The spec of what comes out, for `grain.experimental.get_element_spec`."""
        for operator in self._chain():
            input_spec = operator.output_spec(input_spec)
        return dict(input_spec)


class AugmentBatch(_Augment, grain.transforms.Map):
    """Applies operators to batches of seeded records; goes behind `Batch`.

    In the main process the batch is put on the default device and augmented there, by one function compiled once for
    each shape; `map` does not wait for the device, and the fields that operators write come out as `jax.Array`. Until
    they are ready the batch is not to be written to: on the CPU JAX reads NumPy arrays where they are. In a Grain
    worker process it runs on the CPU and returns NumPy. All other fields come out as they are, the same objects.

    Operators draw independently. Their `name` tells them apart, or else their class and what they draw; unnamed ones
    that agree in both are numbered in their order, so name those whose neighbours may change. An operator that computes
    statistics of the batch (`batch_stats_fn`) ends one compiled function and begins the next.

    Args:
      operators: One operator or a list of them, applied in that order.
      keep_seed: Keep `record_seed` in the batch.
      donate: Overwrite the buffers of `jax.Array`s in the batch where that saves memory: they can't be used
        afterwards. NumPy arrays are never overwritten.

    Raises:
      TypeError, ValueError: If `operators` holds something else or nothing.

    Example:
      >>> import grain_datarax as gdx
      >>> noise = gdx.NoiseOperator(gdx.NoiseOperatorConfig(field_key="image", stochastic=True), rngs=nnx.Rngs(0))
      >>> source = grain.MapDataset.source([{"image": np.zeros((8, 8, 3), np.uint8), "label": 3}] * 4)
      >>> batches = source.random_map(gdx.SeedRecords(), seed=7).batch(2).map(gdx.AugmentBatch(noise))
      >>> {name: (type(field).__name__, field.shape) for name, field in batches[0].items()}
      {'image': ('ArrayImpl', (2, 8, 8, 3)), 'label': ('ndarray', (2,))}
    """

    def __init__(
        self,
        operators: ModalityOperator | Sequence[ModalityOperator],
        *,
        keep_seed: bool = False,
        donate: bool = False,
    ) -> None:
        super().__init__(operators)
        self._keep_seed = keep_seed
        self._donate = donate

    def map(self, element: Mapping[str, Any]) -> dict[str, Any]:
        """The augmented batch.

        Args:
          element: A batch: images `(B, H, W)` or `(B, H, W, C)`, `record_seed` uint32 `(B, 2)`, and anything else.

        Returns:
          A new dict of the same fields without `record_seed`.

        Raises:
          TypeError: If the batch is no mapping, or an image's dtype can't be treated.
          KeyError: If the seeds or an operator's field are missing.
          ValueError: If a shape, or in the first host batch a value, can't be treated.
        """
        return self.augment(element)

    def augment(self, element: Mapping[str, Any], counted: int | None = None) -> dict[str, Any]:
        """As `map`; the rows from `counted` on are padding, augmented like the others but not counted."""
        require_mapping(element)
        with _worker_on_cpu() as in_worker:
            operators = self._chain()
            if RECORD_SEED not in element and any(operator.stochastic for operator in operators):
                raise KeyError(
                    f"`{RECORD_SEED}` must be in the batch: got the fields {field_names(element)}. Add"
                    " grain_datarax.SeedRecords() before Batch; where it is there already, augment once, or pass"
                    " keep_seed=True to what comes first."
                )
            self.check_values(element)
            written, _ = augment_batch(
                operators,
                self._names,
                element,
                element.get(RECORD_SEED),
                donate=self._donate,
                counted=counted,
            )
            if in_worker:
                written = {path: np.asarray(field) for path, field in written.items()}
        augmented = set_fields(element, written)
        if not self._keep_seed:
            augmented.pop(RECORD_SEED, None)
        return augmented

    def output_spec(self, input_spec: Mapping[str, Any]) -> dict[str, Any]:
        """The spec of an augmented batch, for `grain.experimental.get_element_spec`."""
        spec = super().output_spec(input_spec)
        if not self._keep_seed:
            spec.pop(RECORD_SEED, None)
        return spec


class AugmentRecord(_Augment, grain.transforms.RandomMap):
    """Applies operators to single records: the same pixels as `SeedRecords`, `Batch` and `AugmentBatch` give.

    Each record takes one run of the compiled function, for a batch of one; prefer batches where there are any. A
    record that carries a `record_seed` draws from that and keeps it, another one from its own generator. What
    operators write comes out as NumPy.

    Args:
      operators: One operator or a list of them, applied in that order.

    Raises:
      TypeError, ValueError: If `operators` holds something else or nothing.

    Example:
      >>> import grain_datarax as gdx
      >>> noise = gdx.NoiseOperator(gdx.NoiseOperatorConfig(field_key="image", stochastic=True), rngs=nnx.Rngs(0))
      >>> source = grain.MapDataset.source([{"image": np.zeros((8, 8, 3), np.uint8), "label": 3}])
      >>> record = source.random_map(gdx.AugmentRecord(noise), seed=7)[0]
      >>> record["image"].dtype, record["image"].shape
      (dtype('uint8'), (8, 8, 3))
    """

    def random_map(self, element: Mapping[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """The augmented record.

        Args:
          element: A record: images `(H, W)` or `(H, W, C)`, and anything else.
          rng: The record's own generator.

        Returns:
          A new dict of the same fields.

        Raises:
          As `AugmentBatch.map`; ValueError also if there is no generator.
        """
        require_mapping(element)
        with _worker_on_cpu():
            operators, seeds = self._chain(), None
            if any(operator.stochastic for operator in operators):
                seeds = np.asarray(element[RECORD_SEED] if RECORD_SEED in element else draw_seed(rng))[None]
            self.check_values(element)
            fields = {path for operator in operators for path in operator.reads} & flatten(element).keys()
            batch = set_fields(element, {path: _batch_of_one(get_field(element, path)) for path in fields})
            written, _ = augment_batch(operators, self._names, batch, seeds)
            # Copied: a view of JAX's memory is read-only, and records are for other transforms to work on.
            return set_fields(element, {path: np.array(field[0]) for path, field in written.items()})


def _batch_of_one(field: Any) -> Any:
    return field[None] if isinstance(field, np.ndarray | jax.Array) else field


@dataclasses.dataclass
class _Packed:
    """Operators without JAX arrays."""

    graphdef: nnx.GraphDef
    state: Any


@dataclasses.dataclass
class _KeyWords:
    """A PRNG key without a JAX array."""

    impl: Any
    words: np.ndarray


def _pack(operators: tuple[ModalityOperator, ...]) -> _Packed:
    def to_numpy(leaf: Any) -> Any:
        if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return _KeyWords(jax.random.key_impl(leaf), np.asarray(jax.random.key_data(leaf)))
        return np.asarray(leaf)

    graphdef, state = nnx.split(operators)
    return _Packed(graphdef, jax.tree.map(to_numpy, state))


def _unpack(packed: _Packed) -> tuple[ModalityOperator, ...]:
    def from_numpy(leaf: Any) -> Any:
        return (
            jax.random.wrap_key_data(jnp.asarray(leaf.words), impl=leaf.impl) if isinstance(leaf, _KeyWords) else leaf
        )

    return nnx.merge(packed.graphdef, jax.tree.map(from_numpy, packed.state))


def _in_grain_worker() -> bool:
    # By name: a training process may itself be a child, and must keep its accelerator.
    return multiprocessing.current_process().name.startswith("grain-process-prefetch")


_told = False


@contextlib.contextmanager
def _worker_on_cpu() -> Iterator[bool]:
    """Keeps JAX off the accelerator in a Grain worker process; yields whether this is one."""
    if not _in_grain_worker():
        yield False
        return
    global _told
    if not _told:
        _told = True
        jax.config.update("jax_platforms", "cpu")
        _log.info(
            "Augmenting on the CPU of a Grain worker process. The accelerator is faster: leave AugmentBatch out of the"
            " operations, and put grain_datarax.DeviceLoader around the loader."
        )
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        try:
            yield True
        except Exception as error:
            if type(error).__module__ == "builtins":
                raise
            # Grain pickles a worker's exception, and waits for ever if that fails, as with some of JAX's.
            raise RuntimeError(f"{type(error).__name__}: {error}") from None
