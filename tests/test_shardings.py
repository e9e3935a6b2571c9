"""The ways in which people write how rows are spread: the pixels of one device, and what cannot work says what does."""

import jax
import numpy as np
import pytest
from device_sources import SOURCES, chain, dataset, every_buffer_size, expected_from
from helpers import contents
from jax.sharding import AxisType, NamedSharding, PartitionSpec, SingleDeviceSharding

import grain_datarax as gdx

pytestmark = pytest.mark.once

P = PartitionSpec
MESHES = {"flat": ((8,), ("data",)), "two axes": ((4, 2), ("data", "fsdp")), "one device": ((1,), ("data",))}
# A mesh, and a spec over it.
SPECS = {
    "as for images": ("flat", P("data", None, None, None)),
    "as for images, over one of two axes": ("two axes", P("data", None, None, None)),
    "two axes": ("two axes", P(("data", "fsdp"))),
    "two axes, as for images": ("two axes", P(("fsdp", "data"), None, None, None)),
    "one name in a tuple": ("flat", P(("data",))),
    "replicated": ("two axes", P()),
    "replicated, as for images": ("flat", P(None, None, None, None)),
    "replicated, an empty tuple": ("flat", P(())),
    "one device": ("one device", P("data")),
    "one device, replicated": ("one device", P()),
}
every_spec = pytest.mark.parametrize(("mesh", "spec"), SPECS.values(), ids=SPECS)
every_axis_type = pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit], ids=str)


def mesh_of(name, axis_type):
    shape, names = MESHES[name]
    return jax.make_mesh(shape, names, axis_types=(axis_type,) * len(shape), devices=jax.devices()[-np.prod(shape) :])


def assert_spread(batches, sharding):
    """The pixels of one device, as the sharding spreads them, whatever axes a field has."""
    assert [contents(batch) for batch in batches] == expected_from(SOURCES["loader"])
    for name, field in batches[0].items():
        spread = sharding
        if isinstance(sharding, NamedSharding):
            spread = NamedSharding(sharding.mesh, P(*sharding.spec[: field.ndim]))
        assert field.sharding.is_equivalent_to(spread, field.ndim), name
        jax.jit(lambda value: value + 1)(field).block_until_ready()


@every_spec
@every_axis_type
def test_a_sharding_may_be_written_for_the_image(mesh, spec, axis_type):
    sharding = NamedSharding(mesh_of(mesh, axis_type), spec)
    with gdx.DeviceLoader(SOURCES["loader"](), chain(), sharding=sharding) as batches:
        assert_spread(list(batches), sharding)
        assert batches.sharding.is_equivalent_to(sharding, 4)
        assert batches.sharding.mesh == sharding.mesh


@every_spec
@every_axis_type
def test_a_spec_alone_is_one_over_the_mesh_that_is_set(mesh, spec, axis_type):
    sharding = NamedSharding(mesh_of(mesh, axis_type), spec)
    with jax.set_mesh(sharding.mesh):
        batches = gdx.DeviceLoader(SOURCES["loader"](), chain(), sharding=spec)
    with batches:  # whatever is set by now
        assert_spread(list(batches), sharding)


@every_buffer_size
def test_a_device_is_a_sharding(buffer_size):
    sharding = SingleDeviceSharding(jax.devices()[5])
    with gdx.DeviceLoader(SOURCES["loader"](), chain(), sharding=sharding, buffer_size=buffer_size) as batches:
        assert_spread(list(batches), sharding)
        replicated = NamedSharding(batches.sharding.mesh, P())  # as the README puts a model beside its batches
        np.asarray(jax.jit(jax.numpy.add)(next(iter(batches))["label"], jax.device_put(1, replicated)))


def test_replicated_rows_need_not_divide_over_the_devices():
    batches = gdx.DeviceLoader(dataset().batch(3), chain(), sharding=auto(P()))
    labels = [np.asarray(batch["label"]).tolist() for batch in batches]
    assert [len(rows) for rows in labels] == [3] * 10 + [2]


def test_an_array_keeps_its_sharding_in_a_step_over_an_explicit_mesh():
    with jax.set_mesh(mesh_of("two axes", AxisType.Explicit)):
        batch = next(iter(gdx.DeviceLoader(SOURCES["loader"](), chain(), sharding=P("data", None, None, None))))
        assert jax.typeof(batch["image"]).sharding.spec == P("data", None, None, None)
        assert jax.typeof(batch["label"]).sharding.spec == P("data")


def auto(spec, **kwargs):
    return NamedSharding(mesh_of("two axes", AxisType.Auto), spec, **kwargs)


def loads(sharding):
    return len(list(gdx.DeviceLoader(SOURCES["loader"](), chain(), sharding=sharding))) == 4


def loads_under_a_mesh(sharding):
    with jax.set_mesh(mesh_of("flat", AxisType.Explicit)):
        return loads(sharding)


# What cannot work, its error, and that which the error advises.
WRONG = {
    "a device": (
        lambda: jax.devices()[0],
        TypeError,
        '`sharding` must be a NamedSharding .*Pass jax.NamedSharding\\(mesh, jax.P\\("data"\\)\\), jax.sharding.Singl',
        lambda: loads(SingleDeviceSharding(jax.devices()[0])) and loads(auto(jax.P("data"))) and loads(None),
    ),
    "an abstract mesh": (
        lambda: NamedSharding(mesh_of("flat", AxisType.Auto).abstract_mesh, P("data")),
        TypeError,
        "`sharding` must be a NamedSharding on a mesh of devices",
        lambda: loads(NamedSharding(mesh_of("flat", AxisType.Auto), P("data"))),
    ),
    "columns": (
        lambda: auto(P("data", "fsdp")),
        ValueError,
        "`sharding` must spread axis 0, the records, and no other: got P\\w*\\('data', 'fsdp'\\)",
        lambda: loads(auto(P("data"))),
    ),
    "unconstrained": (
        lambda: auto(P(P.UNCONSTRAINED)),
        ValueError,
        "`sharding` must spread axis 0",
        lambda: loads(auto(P("data"))),
    ),
    "unreduced": (
        lambda: NamedSharding(mesh_of("two axes", AxisType.Explicit), P("data", unreduced={"fsdp"})),
        ValueError,
        "`sharding` must spread axis 0",
        lambda: loads(auto(P("data"))),
    ),
    "no mesh": (
        lambda: P("data"),
        ValueError,
        "`sharding` must say its mesh where none is set: got P\\w*\\('data',?\\). Pass jax.NamedSharding\\(mesh, P",
        lambda: loads_under_a_mesh(P("data")) and loads(NamedSharding(mesh_of("flat", AxisType.Auto), P("data"))),
    ),
    "memory of the host": (
        lambda: auto(P("data"), memory_kind="pinned_host"),
        ValueError,
        "`sharding` must be in the devices' own memory: got memory_kind='pinned_host'. Leave it out",
        lambda: loads(auto(P("data"))),
    ),
    "memory of the host, one device": (
        lambda: SingleDeviceSharding(jax.devices()[0], memory_kind="pinned_host"),
        ValueError,
        "`sharding` must be in the devices' own memory",
        lambda: loads(SingleDeviceSharding(jax.devices()[0])),
    ),
}


@pytest.mark.parametrize(("sharding", "kind", "message", "advised"), WRONG.values(), ids=WRONG)
def test_what_cannot_work_says_what_does(sharding, kind, message, advised):
    with pytest.raises(kind, match=message):
        gdx.DeviceLoader(SOURCES["loader"](), chain(), sharding=sharding())
    assert advised()
