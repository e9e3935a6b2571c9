"""Operators of the package datarax in Grain, and chains in its pipelines. All is skipped where it is not installed, but
not in CI: see .ci/run.
"""

import importlib
import inspect
import pathlib
import pkgutil
import sys

import cloudpickle
import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import closing, noise as noise_of_pages, seeds

import grain_datarax as gdx

datarax = pytest.importorskip("datarax")

import datarax.operators as their_operators
from datarax import Pipeline
from datarax.core.operator import OperatorModule
from datarax.operators.modality import audio, image
from datarax.sources.memory_source import MemorySource, MemorySourceConfig
from datarax_table import (
    DRAWS,
    OPERATORS,
    PATCHES,
    REFUSED,
    AugmentEach,
    Scenes,
    brightness,
    composite,
    image_op,
    map_op,
    noise,
    one_of,
    sometimes,
)

from grain_datarax import adapters
from grain_datarax.adapters import family_of
from grain_datarax.augmenter import launcher_of
from grain_datarax.datarax import ChainOperator
from grain_datarax.fields import flatten

every_operator = pytest.mark.parametrize(("make", "is_random"), OPERATORS.values(), ids=OPERATORS)


def scenes(count=8):
    """A seeded batch."""
    records = [Scenes(count)[index] for index in range(count)]
    return {name: np.stack([record[name] for record in records]) for name in records[0]} | {"record_seed": seeds(count)}


def loader(operations, *, workers=0, count=24):
    sampler = grain.samplers.IndexSampler(count, shuffle=True, num_epochs=1, seed=3)
    return grain.DataLoader(
        data_source=Scenes(count),
        sampler=sampler,
        operations=operations,
        worker_count=workers,
        read_options=grain.ReadOptions(num_threads=2, prefetch_buffer_size=8),
    )


def by_record(batch):
    """The bytes of each record's fields, by its id."""
    fields = {path: np.asarray(field) for path, field in flatten(batch).items() if path != "id"}
    return {
        name: {path: (str(field.dtype), field[row].tobytes()) for path, field in fields.items()}
        for row, name in enumerate(batch["id"].tolist())
    }


def all_records(batches):
    return {name: record for batch in batches for name, record in by_record(batch).items()}


@every_operator
def test_batches_of_any_size_records_and_resumed_loaders_agree_bit_for_bit(make, is_random):
    operator = make()
    links, before = [PATCHES, operator], cloudpickle.dumps(operator)
    augment, expected = gdx.AugmentBatch(links), None
    for size in (1, 3, 8):
        batches = loader([gdx.SeedRecords(), grain.transforms.Batch(size), augment])
        with closing(iter(batches)) as iterator:
            first = [next(iterator), next(iterator)]
            state = iterator.get_state()
            found = all_records([*first, *iterator])
        expected = expected or found
        assert len(found) == 24
        assert found == expected, f"batches of {size}"
    with closing(iter(batches)) as iterator:
        iterator.set_state(state)
        assert all_records([*first, *iterator]) == expected, "resumed"
    with closing(iter(loader([gdx.AugmentRecord(links), grain.transforms.Batch(1)]))) as iterator:
        for name, record in all_records([next(iterator), next(iterator)]).items():
            assert {path: field for path, field in record.items() if not path.startswith("record_")} == expected[name]
    assert [count["applied"] for count in augment.counts().values()] == [24 * 3 + 16] * 2
    same = jax.tree.map(lambda field: np.repeat(field[:1], 8, axis=0), scenes()) | {"record_seed": seeds(8)}
    result = [np.asarray(field) for field in flatten(gdx.AugmentBatch(operator).map(same)).values()]
    assert (len({tuple(field[row].tobytes() for field in result) for row in range(8)}) > 1) == is_random
    assert cloudpickle.dumps(operator) == before


@every_operator
def test_device_loaders_give_the_same_bits_on_eight_devices(make, is_random):
    links = [PATCHES, make()]
    operations = [gdx.SeedRecords(), grain.transforms.Batch(8)]
    with closing(iter(loader([*operations, gdx.AugmentBatch(links)], count=8))) as iterator:
        expected = all_records(iterator)
    with gdx.DeviceLoader(loader(operations, count=8), links) as batches:
        assert all_records(batches) == expected


@pytest.mark.long
def test_worker_processes_give_the_same_bits_also_resumed():
    each = AugmentEach({name: gdx.AugmentBatch([PATCHES, make()]) for name, (make, _) in OPERATORS.items()})
    operations = [gdx.SeedRecords(), grain.transforms.Batch(3, drop_remainder=True), each]
    with closing(iter(loader(operations))) as iterator:
        expected = list(iterator)
    assert len(expected) == 8
    in_workers = loader(operations, workers=2)
    with closing(iter(in_workers)) as iterator:
        found = [next(iterator) for _ in range(3)]
        state = iterator.get_state()
    with closing(iter(in_workers)) as iterator:
        iterator.set_state(state)
        found += list(iterator)
    for name in OPERATORS:
        assert all_records(batch[name] for batch in found) == all_records(batch[name] for batch in expected), name


@pytest.mark.parametrize(("make", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_operators_that_cannot_be_pure_are_refused_with_the_reason(make, error, message):
    with pytest.raises(error, match=message):
        gdx.AugmentBatch(make()).map(scenes())


def test_every_exported_operator_is_in_the_table():
    names = ["datarax", "datarax.core.modality", "datarax.core.cross_modal", "datarax.utils.external"]
    for package in (their_operators, image, audio):
        names += [info.name for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")]
    members = [member for name in names for member in vars(importlib.import_module(name)).values()]
    operators = {member for member in members if inspect.isclass(member) and issubclass(member, OperatorModule)}
    made = [make() for make, *_ in (*OPERATORS.values(), *REFUSED.values())]
    tried = {base for operator in made for base in type(operator).__mro__}
    assert len(operators) > 12
    assert operators - tried == set()
