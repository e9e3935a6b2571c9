"""The operators that datarax exports, each in its settings: those that run, and those that cannot, with the reason.

Apart from test_datarax.py, so that worker processes, which unpickle them, start fast.
"""

import grain
import jax
import jax.numpy as jnp
import numpy as np
from datarax.core.cross_modal import CrossModalOperator, CrossModalOperatorConfig
from datarax.core.modality import ModalityOperator, ModalityOperatorConfig
from datarax.operators import (
    BatchMixOperator,
    BatchMixOperatorConfig,
    CompositeOperatorConfig,
    CompositeOperatorModule,
    CompositionStrategy,
    ElementOperator,
    ElementOperatorConfig,
    MapOperator,
    MapOperatorConfig,
    ProbabilisticOperator,
    ProbabilisticOperatorConfig,
    SelectorOperator,
    SelectorOperatorConfig,
)
from datarax.operators.modality import audio, image
from datarax.pipeline.nodes import RebatchNode
from datarax.utils.external import to_datarax_operator
from flax import nnx

import grain_datarax as gdx

DRAWS = {"stochastic": True, "stream_name": "augment"}


def image_op(kind, *, seed=0, **settings):
    config = getattr(image, f"{kind}OperatorConfig")(field_key="image", **settings)
    return getattr(image, f"{kind}Operator")(config, rngs=nnx.Rngs(seed))


def noise(std=0.1, **settings):
    return image_op("Noise", noise_std=std, **DRAWS, **settings)


def brightness():
    return image_op("Brightness", **DRAWS)


def sometimes(operator, probability):
    config = ProbabilisticOperatorConfig(operator=operator, probability=probability)
    return ProbabilisticOperator(config, rngs=nnx.Rngs(0))


def one_of(*operators):
    return SelectorOperator(SelectorOperatorConfig(operators=list(operators)), rngs=nnx.Rngs(0))


def composite(strategy, *operators, **settings):
    parts = list(operators) or [noise(), brightness()]
    config = CompositeOperatorConfig(strategy=CompositionStrategy[strategy], operators=parts, **settings)
    return CompositeOperatorModule(config, rngs=nnx.Rngs(0))


def nested():
    poisson = image_op("Noise", mode="poisson", lam_scale=30.0, **DRAWS)
    again = composite("SEQUENTIAL", noise(0.3), noise(0.3))
    return composite("SEQUENTIAL", sometimes(one_of(noise(), sometimes(brightness(), 0.5)), 0.7), poisson, again)


def map_op(function, **settings):
    return MapOperator(MapOperatorConfig(subtree={"image": None}, **settings), fn=function, rngs=nnx.Rngs(0))


def element_op(function, **settings):
    def of_image(element, key):
        return element.replace(data={**element.data, "image": function(element.data["image"], key)})

    return ElementOperator(ElementOperatorConfig(**settings), fn=of_image, rngs=nnx.Rngs(0))


def external(stochastic):
    if stochastic:
        return to_datarax_operator(
            lambda data, key: {**data, "image": add_noise(data["image"], key)}, rngs=nnx.Rngs(augment=1)
        )
    return to_datarax_operator(lambda data: {**data, "image": data["image"] / 2}, stochastic=False)


def add_noise(pixels, key):
    return pixels + 0.1 * jax.random.normal(key, pixels.shape)


def is_bright(data):
    return data["image"].mean() > 0.5


def always(_):
    return jnp.array(True)


class Fuse(CrossModalOperator):
    def apply(self, data, state, metadata, key=None, stats=None):
        one, other = self._extract_inputs(data)
        return self._store_outputs(data, [one + other]), state, metadata


class WithLayer(ModalityOperator):
    def __init__(self, layer):
        super().__init__(ModalityOperatorConfig(field_key="image"))
        self.layer = layer

    def apply(self, data, state, metadata, key=None, stats=None):
        return self._remap_field(data, self.layer(data["image"])), state, metadata


class Subtract(ModalityOperator):
    def apply(self, data, state, metadata, key=None, stats=None):
        return self._remap_field(data, data["image"] - stats["mean"]), state, metadata


class FitsToTheBatch(Subtract):
    def compute_statistics(self, batch_data):
        return {"mean": batch_data["image"].mean()}


class OfAnotherVersion(ModalityOperator):
    def apply(self, data, state, metadata, random_params=None, stats=None):
        return data, state, metadata


class CountsRecords(ModalityOperator):
    def __init__(self):
        super().__init__(ModalityOperatorConfig(field_key="image"))
        self.seen = nnx.Variable(jnp.int32(0))

    def apply(self, data, state, metadata, key=None, stats=None):
        self.seen.set_value(self.seen.get_value() + 1)
        return data, state, metadata


class AsksNumPy(ModalityOperator):
    def apply(self, data, state, metadata, key=None, stats=None):
        return self._remap_field(data, data["image"] + np.random.normal()), state, metadata


def with_statistics():
    operator = Subtract(ModalityOperatorConfig(field_key="image"))
    operator.set_statistics({"mean": jnp.float32(0.25)})
    return operator


def batch_mix(mode):
    return BatchMixOperator(BatchMixOperatorConfig(mode=mode), rngs=nnx.Rngs(0))


# By name: how it is made, and whether records of the same values come out different.
OPERATORS = {
    "brightness": (brightness, True),
    "brightness, fixed": (lambda: image_op("Brightness", brightness_delta=0.1), False),
    "contrast": (lambda: image_op("Contrast", **DRAWS), True),
    "contrast, fixed": (lambda: image_op("Contrast", contrast_factor=0.7), False),
    "rotation": (lambda: image_op("Rotation", **DRAWS), True),
    "rotation, fixed": (lambda: image_op("Rotation", angle=10.0), False),
    "dropout of pixels": (lambda: image_op("Dropout", dropout_rate=0.3, **DRAWS), True),
    "dropout of channels": (lambda: image_op("Dropout", dropout_rate=0.5, mode="channel", **DRAWS), True),
    "dropout, fixed": (lambda: image_op("Dropout", dropout_rate=0.3), False),
    "gaussian noise": (noise, True),
    "gaussian noise, scanned": (lambda: noise(batch_strategy="scan"), True),
    "salt and pepper": (lambda: image_op("Noise", mode="salt_pepper", salt_prob=0.1, **DRAWS), True),
    "poisson noise": (lambda: image_op("Noise", mode="poisson", lam_scale=30.0, **DRAWS), True),
    "gaussian noise, fixed": (lambda: image_op("Noise"), False),
    "patch dropout": (lambda: image_op("PatchDropout", patch_size=(3, 4), **DRAWS), True),
    "patch dropout, fixed": (lambda: image_op("PatchDropout", patch_size=(3, 4)), False),
    "map": (lambda: map_op(add_noise, **DRAWS), True),
    "map, fixed": (lambda: map_op(lambda pixels, key: (pixels - 0.5) / 0.25), False),
    "element": (lambda: element_op(add_noise, **DRAWS), True),
    "element, fixed": (lambda: element_op(lambda pixels, key: pixels[::-1]), False),
    "probabilistic, p=0.5": (lambda: sometimes(noise(), 0.5), True),
    "probabilistic, p=1": (lambda: sometimes(noise(), 1.0), True),
    "probabilistic, p=0": (lambda: sometimes(noise(), 0.0), False),
    "selector": (lambda: one_of(noise(), brightness()), True),
    "sequential": (lambda: composite("SEQUENTIAL"), True),
    "dynamic sequential": (lambda: composite("DYNAMIC_SEQUENTIAL"), True),
    "conditional sequential": (
        lambda: composite("CONDITIONAL_SEQUENTIAL", conditions=[is_bright, always]),
        True,
    ),
    "parallel, concatenated": (lambda: composite("PARALLEL", merge_strategy="concat", merge_axis=-1), True),
    "parallel, stacked": (lambda: composite("PARALLEL", merge_strategy="stack"), True),
    "parallel, summed": (lambda: composite("PARALLEL", merge_strategy="sum"), True),
    "parallel, averaged": (lambda: composite("PARALLEL", merge_strategy="mean"), True),
    "parallel, in a dict": (lambda: composite("PARALLEL", merge_strategy="dict"), True),
    "weighted parallel": (lambda: composite("WEIGHTED_PARALLEL", weights=[0.3, 0.7]), True),
    "weighted parallel, learnable": (lambda: composite("WEIGHTED_PARALLEL", learnable_weights=True), True),
    "weighted parallel, by the record": (lambda: composite("WEIGHTED_PARALLEL", weight_key="weights"), True),
    "conditional parallel": (
        lambda: composite("CONDITIONAL_PARALLEL", conditions=[is_bright, always], merge_strategy="mean"),
        True,
    ),
    "mean of an ensemble": (lambda: composite("ENSEMBLE_MEAN"), True),
    "sum of an ensemble": (lambda: composite("ENSEMBLE_SUM"), True),
    "greatest of an ensemble": (lambda: composite("ENSEMBLE_MAX"), True),
    "least of an ensemble": (lambda: composite("ENSEMBLE_MIN"), True),
    "branching": (lambda: composite("BRANCHING", router=lambda data: is_bright(data).astype(jnp.int32)), True),
    "nested": (nested, True),
    "loudness": (lambda: audio.LoudnessOperator(audio.LoudnessConfig(n_fft=512), rngs=nnx.Rngs(0)), False),
    "crepe": (
        lambda: audio.CrepeF0Operator(
            audio.CrepeF0Config(capacity="tiny", frame_rate=50, batch_frames=0), rngs=nnx.Rngs(0)
        ),
        False,
    ),
    "external library": (lambda: external(True), True),
    "pure JAX": (lambda: external(False), False),
    "of several fields": (
        lambda: Fuse(CrossModalOperatorConfig(input_fields=["image", "mask"], output_fields=["sum"])),
        False,
    ),
    "with statistics, in a composite": (lambda: composite("SEQUENTIAL", with_statistics(), noise()), True),
    "with dropout of its own": (lambda: WithLayer(nnx.Dropout(0.3, rngs=nnx.Rngs(0))), True),
}

# By name: how it is made, the error, and what it says.
REFUSED = {
    "mixup": (lambda: batch_mix("mixup"), ValueError, "records one by one: got BatchMixOperator of datarax .*`apply_"),
    "cutmix, in a composite": (
        lambda: composite("SEQUENTIAL", noise(), batch_mix("cutmix")),
        ValueError,
        r"one by one: got BatchMixOperator in CompositeOperatorModule \(operators.1\) of .* needs the whole batch",
    ),
    "statistics of the batch": (
        lambda: FitsToTheBatch(ModalityOperatorConfig(field_key="image")),
        ValueError,
        "must not fit statistics to the batch: got FitsToTheBatch of datarax .*set_statistics",
    ),
    "batch norm in training": (
        lambda: WithLayer(nnx.BatchNorm(3, rngs=nnx.Rngs(0))),
        ValueError,
        r"`apply` must not write into modules: got WithLayer of .*, which writes layer.mean. .*eval\(\)",
    ),
    "counting": (CountsRecords, ValueError, "`apply` must not write into modules: got CountsRecords .*writes seen"),
    "counting, if taken": (
        lambda: sometimes(CountsRecords(), 0.5),
        ValueError,
        "`apply` must not write into modules: got ProbabilisticOperator",
    ),
    "on the host": (
        lambda: map_op(lambda pixels, key: jnp.asarray(np.asarray(pixels) * 2)),
        TypeError,
        "`apply` must be made of JAX's functions: got MapOperator .*in a Grain map",
    ),
    "NumPy's generator": (
        lambda: AsksNumPy(ModalityOperatorConfig(field_key="image")),
        ValueError,
        "`apply` must draw from its key alone",
    ),
    "a node of a DAG": (
        lambda: RebatchNode(2),
        TypeError,
        "`operators` must be operators: got RebatchNode of datarax .*counterparts in Grain",
    ),
    "of another version": (
        lambda: OfAnotherVersion(ModalityOperatorConfig(field_key="image")),
        TypeError,
        r"must take the arguments of .*key, stats\): got OfAnotherVersion.apply\(data, state, metadata, random_params",
    ),
}


class Scenes:
    """A source of records with images and sounds; `id` is text, which operators that treat all fields leave alone."""

    def __init__(self, count):
        rng = np.random.default_rng(0)
        self._records = [
            {
                "image": rng.random((16, 12, 3), np.float32),
                "mask": rng.random((16, 12, 3), np.float32),
                "audio": rng.standard_normal(2048).astype(np.float32),
                "weights": rng.random(2, np.float32),
                "id": f"{index:03}",
            }
            for index in range(count)
        ]

    def __len__(self):
        return len(self._records)

    def __getitem__(self, index):
        return self._records[index]

    def __repr__(self):
        return f"Scenes({len(self)})"


# Before the operator, so that it stands in a sequence.
PATCHES = gdx.Chain([gdx.PatchDropout(num_patches=1, patch_size=(3, 4))], seed=0)


class AugmentEach(grain.transforms.Map):
    """A batch -> what becomes of it under each operator, so that one loader does for all."""

    def __init__(self, transforms):
        self._transforms = transforms

    def map(self, batch):
        return {name: transform.map(batch) for name, transform in self._transforms.items()}
