"""What is compiled for other devices than this one: the same numbers, written in the way that suits them."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from effect_table import EFFECTS as TABLE
from effect_table import LATER, thorough

import grain_datarax as gdx
from grain_datarax.effects import patches
from grain_datarax.random import bits
from grain_datarax.random.bits import STREAM, treated_bits
from grain_datarax.records import Augmentation

SIZE = (13, 9)
EFFECTS = (gdx.PatchDropout(), gdx.GaussianNoise(), gdx.SaltPepperNoise(), gdx.PoissonNoise(photons=30))


@pytest.mark.parametrize("width", [8, 16, 32])
@pytest.mark.parametrize("shape", [(8, 5, 3), (24, 7), (16,), (8, 1, 1)])
def test_bits_are_the_same_however_they_are_put_together(shape, width):
    words = jax.random.key_data(jax.random.key(3, impl=STREAM))
    count = math.prod(shape) * width // 64
    in_one_row = bits._in_one_row(words, count=count, bit_width=width, shape=shape, treat=lambda drawn: drawn)
    for draw in (bits._in_shape, bits._by_value):
        np.testing.assert_array_equal(draw(words, bit_width=width, shape=shape), in_one_row, err_msg=draw.__name__)
    np.testing.assert_array_equal(jax.random.bits(jax.random.key(3, impl=STREAM), shape, f"uint{width}"), in_one_row)


@pytest.mark.parametrize("width", [8, 16, 32])
@pytest.mark.parametrize("shape", [(8, 5, 3), (7, 5, 3), (1,), (3, 1)])
def test_treated_bits_are_the_bits_treated(shape, width):
    key = jax.random.key(3, impl=STREAM)
    treated = treated_bits(lambda drawn: (drawn % 7).astype(jnp.int8), key, shape, width)
    np.testing.assert_array_equal(treated, (jax.random.bits(key, shape, f"uint{width}") % 7).astype(jnp.int8))


@pytest.mark.parametrize("count", [0, 1, 32, 33, 300])
def test_all_ways_to_cover_patches_agree(count):
    positions = np.random.default_rng(count).integers(0, SIZE, (count, 2), np.int32)  # some hang over the edge
    expected = np.zeros(SIZE, bool)
    for y, x in positions:
        expected[y : y + 3, x : x + 2] = True
    for cover in (patches._scattered, patches._compared, patches._counted):
        covered = jax.jit(functools.partial(cover, size=SIZE, patch_size=(3, 2)))(positions)
        np.testing.assert_array_equal(covered, expected, err_msg=cover.__name__)


def lowered(effect, platform, *, in_place=False):
    """The program of a chain for a kind of device, before XLA compiles it: none need be there."""
    chain = gdx.Chain([effect], seed=0)
    images, seeds = {"image": jnp.zeros((4, 64, 48, 3), jnp.uint8)}, jnp.zeros((4, 2), jnp.uint32)
    augment = Augmentation.of(chain, in_place=in_place).augment
    return jax.jit(augment).trace(images, seeds).lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize(
    ("count", "in_place", "scattering"),
    [(1, False, {"cpu"}), (1, True, {"cpu", "cuda"}), (300, False, {"cpu", "cuda"}), (300, True, {"cpu", "cuda"})],
)
def test_patches_are_scattered_where_that_is_cheaper(count, in_place, scattering):
    effect = gdx.PatchDropout(num_patches=count, patch_size=(2, 2) if count == 1 else (1, 1))
    programs = {platform: lowered(effect, platform, in_place=in_place) for platform in ("cpu", "cuda", "tpu")}
    assert {platform for platform, program in programs.items() if "stablehlo.scatter" in program} == scattering


def test_a_program_exported_for_all_platforms_gives_the_same_pixels():
    chain = gdx.Chain(EFFECTS, seed=0)
    images, seeds = np.full((4, 64, 48, 3), 0.5, np.float32), np.arange(8, dtype=np.uint32).reshape(4, 2)
    augment = jax.jit(lambda images, seeds: gdx.augment(chain, {"image": images, "record_seed": seeds})["image"])
    exported = jax.export.export(augment, platforms=("cpu", "cuda", "rocm", "tpu"))(images, seeds)
    np.testing.assert_array_equal(exported.call(images, seeds), augment(images, seeds))


@pytest.mark.parametrize("effect", EFFECTS, ids=lambda effect: type(effect).__name__)
def test_a_compiled_program_chooses_nothing_while_it_runs(effect):
    images, keys = jnp.zeros((4, 64, 48, 3)), jnp.zeros((4, 2), jnp.uint32)
    chain = gdx.Chain([effect], seed=0)
    augment = jax.jit(lambda images, keys: gdx.augment(chain, {"image": images, "record_seed": keys})["image"])
    program = augment.lower(images, keys).compile().as_text()
    assert "ENTRY" in program
    assert "conditional(" not in program


@pytest.mark.parametrize("name", thorough(*LATER))
def test_every_law_can_be_written_for_other_devices(name):
    for platform in ("cuda", "rocm", "tpu"):
        assert "stablehlo" in lowered(TABLE[name](), platform)


def test_bits_are_put_together_in_the_shape_of_the_image_on_gpu():
    in_shape = "-> tensor<4x64x48x3xui32>"
    concatenated = {
        platform: [line for line in lowered(gdx.GaussianNoise(), platform).splitlines() if "concatenate" in line]
        for platform in ("cuda", "cpu")
    }
    assert any(in_shape in line for line in concatenated["cuda"])
    assert not any(in_shape in line for line in concatenated["cpu"])


def test_hashes_are_not_fused_with_what_uses_them_on_gpu():
    has_barrier = {kind: "optimization_barrier" in lowered(gdx.GaussianNoise(), kind) for kind in ("cuda", "tpu")}
    assert has_barrier == {"cuda": True, "tpu": False}
