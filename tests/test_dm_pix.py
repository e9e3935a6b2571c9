"""Functions of dm_pix as effects: ten of them give a record its pixels in any batch, worker and resumed run."""

import functools

import dm_pix as pix
import grain
import jax
import numpy as np
import pytest
from effect_table import chain
from sources import images

import grain_datarax as gdx

pytestmark = pytest.mark.once


def shifted(key, image, most):
    """One of dm_pix's functions without a key, with a strength that is drawn."""
    return pix.adjust_brightness(image, most * jax.random.uniform(key))


def curved(key, image, low, high):
    return pix.adjust_gamma(image, jax.random.uniform(key, minval=low, maxval=high))


def blurred(key, image):
    del key
    return pix.gaussian_blur(image, 1.0, 3)


FUNCTIONS = {
    "random_brightness": functools.partial(pix.random_brightness, max_delta=0.3),
    "random_contrast": functools.partial(pix.random_contrast, lower=0.5, upper=1.5),
    "random_flip_left_right": pix.random_flip_left_right,
    "random_flip_up_down": pix.random_flip_up_down,
    "random_gamma": functools.partial(pix.random_gamma, min_gamma=0.5, max_gamma=2.0),
    "random_hue": functools.partial(pix.random_hue, max_delta=0.2),
    "random_saturation": functools.partial(pix.random_saturation, lower=0.5, upper=1.5),
    "adjust_brightness": functools.partial(shifted, most=0.3),
    "adjust_gamma": functools.partial(curved, low=0.5, high=2.0),
    "gaussian_blur": blurred,
}


class Images(grain.transforms.Map):
    def map(self, element):
        return {"image": images(24, dtype="uint8")[element]}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_of_dm_pix_gives_a_record_its_pixels_in_any_batch(name):
    links = chain(gdx.Function(FUNCTIONS[name]))
    dataset = grain.MapDataset.range(24).map(Images()).random_map(gdx.SeedRecords(), seed=7)
    results = [
        np.concatenate([np.asarray(gdx.AugmentBatch(links).map(batch)["image"]) for batch in dataset.batch(size)])
        for size in (1, 3, 8)
    ]
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])
    assert (results[0] != images(24, dtype="uint8")).any(axis=(1, 2, 3)).sum() > 4


@pytest.mark.long
@pytest.mark.thorough
def test_workers_give_the_same_pixels_and_go_on_where_a_state_was_taken():
    links = chain(*(gdx.Function(function, name=name, p=0.5) for name, function in FUNCTIONS.items()))

    def batches(worker_count):
        return grain.DataLoader(
            data_source=grain.sources.RangeDataSource(0, 24, 1),
            sampler=grain.samplers.IndexSampler(24, num_epochs=1, seed=5, shuffle=True),
            operations=[Images(), gdx.SeedRecords(), grain.transforms.Batch(4), gdx.AugmentBatch(links)],
            worker_count=worker_count,
        )

    results = {}
    for worker_count in (0, 2):
        iterator = iter(batches(worker_count))
        first = [np.asarray(next(iterator)["image"]) for _ in range(2)]
        state = iterator.get_state()
        rest = [np.asarray(batch["image"]) for batch in iterator]
        again = iter(batches(worker_count))
        again.set_state(state)
        np.testing.assert_array_equal([np.asarray(batch["image"]) for batch in again], rest)
        results[worker_count] = np.sort(np.concatenate(first + rest).reshape(24, -1), axis=0)
    np.testing.assert_array_equal(results[0], results[2])
