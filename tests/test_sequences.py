"""Chains and operators in one list: links of one sequence."""

import grain
import jax
import numpy as np
import pytest
from helpers import assert_unpickling_starts_no_backend, closing, contents, loader, noise, patch_dropout, seeded_batch

import grain_datarax as gdx

NOISE = gdx.Chain([gdx.GaussianNoise(std=0.1)], seed=0)
PATCHES = gdx.Chain([gdx.PatchDropout(num_patches=1, patch_size=(3, 4), p=0.5)], seed=1)


def test_links_apply_in_their_order_each_as_it_does_alone():
    batch = seeded_batch(8, dtype="uint8")
    links = [noise(), NOISE, PATCHES, noise(), patch_dropout()]
    augment = gdx.AugmentBatch(links)
    result, expected = augment.map(batch), batch
    # Operators are told apart as if they were all there is.
    for link in (noise(), NOISE, PATCHES, noise(name="NoiseOperator/gaussian#2"), patch_dropout()):
        expected = gdx.AugmentBatch(link, keep_seed=True).map(expected)
    np.testing.assert_array_equal(result["image"], expected["image"])
    counts = augment.counts()
    names = ["NoiseOperator/gaussian", "GaussianNoise", "PatchDropout/1x3x4", "NoiseOperator/gaussian#2"]
    assert list(counts)[:4] == names
    assert {each["applied"] + each["skipped"] for each in counts.values()} == {8}
    assert 0 < counts["PatchDropout/1x3x4"]["skipped"] < 8
    pure, by_record = jax.jit(lambda batch: gdx.augment(links, batch, counts=True))(batch)
    np.testing.assert_array_equal(pure["image"], result["image"])
    assert by_record.keys() == counts.keys()
    assert by_record["PatchDropout/1x3x4"]["applied"].sum() == counts["PatchDropout/1x3x4"]["applied"]
    record = {name: field[2] for name, field in batch.items()}
    np.testing.assert_array_equal(gdx.AugmentRecord(links).random_map(record, None)["image"], result["image"][2])
    assert repr(gdx.AugmentBatch([NOISE])) == repr(gdx.AugmentBatch(NOISE))


def test_links_that_would_draw_the_same_are_refused():
    with pytest.raises(ValueError, match=r"`name` must be unique among .*: got \['GaussianNoise'\] in two chains"):
        gdx.AugmentBatch([NOISE, PATCHES, gdx.Chain([gdx.GaussianNoise(std=0.2)], seed=0)])
    again = gdx.AugmentBatch([NOISE, gdx.Chain(NOISE.effects, seed=1)])
    assert list(again.counts()) == ["GaussianNoise", "GaussianNoise#2"]
    kept = gdx.AugmentBatch(NOISE, keep_seed=True).map(seeded_batch(2))
    with pytest.raises(ValueError, match="must not be that of an effect that drew from the same seeds before"):
        gdx.AugmentBatch([PATCHES, NOISE]).map(kept)


def test_device_loaders_give_their_pixels_and_refuse_a_checkpoint_of_others():
    operations = [gdx.SeedRecords(), grain.transforms.Batch(8)]
    expected = [contents(batch) for batch in loader([*operations, gdx.AugmentBatch([NOISE, noise(), PATCHES])])]
    batches = gdx.DeviceLoader(loader(operations), [NOISE, noise(), PATCHES])
    with closing(iter(batches)) as iterator:
        found = [contents(next(iterator))]
        state = iterator.get_state()
        found += map(contents, iterator)
    assert found == expected
    with closing(iter(batches)) as iterator:
        iterator.set_state(state)
        assert list(map(contents, iterator)) == expected[1:]
    for other, told in [
        ([NOISE, noise(), gdx.Chain(PATCHES.effects, seed=2)], "`seed` 2 for 1 in the chain"),
        ([NOISE, noise(noise_std=0.2), PATCHES], "`noise_std` 0.2 for 0.05 in NoiseOperator/gaussian"),
        ([gdx.Chain([gdx.GaussianNoise(std=0.2)], seed=0), noise(), PATCHES], "`std` 0.2 for 0.1 in GaussianNoise"),
        ([noise(), NOISE, PATCHES], "the operators"),
    ]:
        with (
            closing(iter(gdx.DeviceLoader(loader(operations), other))) as iterator,
            pytest.raises(ValueError, match=told),
        ):
            iterator.set_state(state)


def test_specs_go_through_all_links():
    links = [NOISE, noise(target_key="noisy"), gdx.Chain([gdx.Cast(dtype="float32")], seed=0)]
    spec = {"image": grain.experimental.ShapeDtypeStruct(shape=(16, 12, 3), dtype=np.uint8)}
    told = gdx.AugmentRecord(links).output_spec(spec)
    assert {name: each.dtype for name, each in told.items()} == {"image": np.float32, "noisy": np.uint8}
    batch = gdx.AugmentBatch(links).map(seeded_batch(2, dtype="uint8"))
    assert {name: batch[name].dtype for name in told} == {name: each.dtype for name, each in told.items()}


def test_sequences_start_no_backend_where_they_are_unpickled(tmp_path):
    assert_unpickling_starts_no_backend(gdx.AugmentBatch([NOISE, noise(), PATCHES]), tmp_path)
