"""`check_pipeline`: each trap of Grain's is found in a pipeline that has it, and not in the same one mended."""

import subprocess
import sys
import textwrap
import warnings

import grain
import jax
import numpy as np
import pytest
from absl import flags
from sources import records

import grain_datarax as gdx
from grain_datarax.__main__ import main
from grain_datarax.check import report_of
from grain_datarax.pipelines import read_pipeline
from grain_datarax.traps import find_traps
from grain_datarax.traps.finding import Surroundings
from grain_datarax.traps.program import Program

pytestmark = pytest.mark.once

NOISE = gdx.Chain([gdx.GaussianNoise(std=0.1)], seed=0)
FIXED = gdx.Chain([gdx.HorizontalFlip(p=1.0), gdx.Normalize(mean=0.5, std=0.25)], seed=0)
LIGHT = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
HOST = grain.sharding.ShardOptions(shard_index=1, shard_count=2)
BY_PROCESS = grain.sharding.ShardByJaxProcess()
ONE_DEVICE = jax.sharding.SingleDeviceSharding(jax.devices()[0])
GOOD_PROGRAM = Program(path=None, guarded=True, flags_parsed=True)


class AddNoise(grain.transforms.RandomMap):
    def random_map(self, element, rng):
        return element | {"image": element["image"] + rng.normal(size=element["image"].shape)}


class Keep(grain.transforms.Filter):
    def filter(self, element):
        return element["label"] % 3 > 0


class Halves(grain.experimental.FlatMapTransform):
    max_fan_out = 2

    def flat_map(self, element):
        return [{**element, "image": half} for half in np.split(element["image"], 2)]


def source(count=32):
    return grain.MapDataset.source(records(count))


def seeded(dataset, **kwargs):
    return dataset.random_map(gdx.SeedRecords(**kwargs), seed=7)


def loader(
    *operations, count=32, epochs=1, seed=0, workers=0, sampler_shards=None, shards=None, shuffle=True, **kwargs
):
    sharded = {} if sampler_shards is None else {"shard_options": sampler_shards}
    return grain.DataLoader(
        data_source=records(count),
        sampler=grain.samplers.IndexSampler(count, shuffle=shuffle, num_epochs=epochs, seed=seed, **sharded),
        operations=operations,
        worker_count=workers,
        shard_options=shards,
        **{"read_options": LIGHT, **kwargs},
    )


def batch(size=4, drop_remainder=True):
    return grain.transforms.Batch(size, drop_remainder=drop_remainder)


def drawn_while_iterating(dataset):
    return dataset.to_iter_dataset(LIGHT).random_map(AddNoise(), seed=1)


def with_workers(dataset, count=2):
    return dataset.mp_prefetch(grain.multiprocessing.MultiprocessingOptions(num_workers=count))


def within(composition, p):
    return gdx.Chain([composition([gdx.BrightnessContrast(brightness=0.1, contrast=0.2, p=p)])], seed=0)


# trap -> pipelines that are in it, each beside the same one, mended.
TRAPS = {
    "random_map on the share of a host": [
        (lambda: source()[1::2].random_map(AddNoise(), seed=1), lambda: source().random_map(AddNoise(), seed=1)[1::2]),
        (lambda: source()[0::1].random_map(AddNoise(), seed=1), lambda: source().random_map(AddNoise(), seed=1)[0::1]),
        (lambda: seeded(source()[1::2]), lambda: seeded(source())[1::2]),
        (lambda: seeded(source()[1::2]), lambda: seeded(source()[1::2], key="label")),
        (lambda: source()[1::2].shuffle(seed=3).seed(4).random_map(AddNoise()).batch(4), lambda: source()[1::2].shuffle(seed=3).batch(4)),
        (lambda: drawn_while_iterating(source()[1::2]), lambda: source().random_map(AddNoise(), seed=1)[1::2].to_iter_dataset(LIGHT)),
        (lambda: source()[1::2].random_map(gdx.AugmentRecord(NOISE), seed=1), lambda: seeded(source())[1::2].random_map(gdx.AugmentRecord(NOISE), seed=1)),
        (lambda: gdx.DeviceLoader(with_workers(seeded(source()[1::2]).batch(4).to_iter_dataset()), NOISE), lambda: gdx.DeviceLoader(with_workers(seeded(source())[1::2].batch(4).to_iter_dataset()), NOISE)),
    ],
    "random_map behind a filter": [
        (lambda: source().to_iter_dataset(LIGHT).filter(Keep()).random_map(AddNoise(), seed=1), lambda: drawn_while_iterating(source()).filter(Keep())),
        (lambda: with_workers(drawn_while_iterating(source().filter(Keep()))), lambda: with_workers(source().filter(Keep()).random_map(AddNoise(), seed=1).to_iter_dataset(LIGHT))),
    ],
    "RandomMap behind Batch": [
        (lambda: loader(batch(), AddNoise()), lambda: loader(AddNoise(), batch())),
        (lambda: loader(batch(), gdx.SeedRecords()), lambda: loader(gdx.SeedRecords(), batch())),
        (lambda: source().batch(4).random_map(AddNoise(), seed=1), lambda: source().random_map(AddNoise(), seed=1).batch(4)),
        (lambda: drawn_while_iterating(source().batch(4)), lambda: drawn_while_iterating(source()).batch(4)),
    ],
    "epochs that repeat": [
        (lambda: seeded(source()).repeat(2, reseed_each_epoch=False), lambda: seeded(source()).repeat(2)),
        (lambda: grain.experimental.RepeatIterDataset(seeded(source()).to_iter_dataset(LIGHT), 2), lambda: seeded(source()).repeat(2).to_iter_dataset(LIGHT)),
    ],
    "one seed for two stages": [
        (lambda: source().random_map(AddNoise(), seed=1).random_map(AddNoise(), seed=1), lambda: source().random_map(AddNoise(), seed=1).random_map(AddNoise(), seed=2)),
        (lambda: seeded(source()).random_map(AddNoise(), seed=7), lambda: source().seed(7).random_map(gdx.SeedRecords()).random_map(AddNoise())),
    ],
    "one seed for mixed datasets": [
        (lambda: grain.MapDataset.mix([seeded(source(8)), seeded(source(9))]), lambda: grain.MapDataset.mix([seeded(source(8)), seeded(source(9), salt="b")])),
        (lambda: grain.MapDataset.mix([seeded(source()[i::3]) for i in range(3)]), lambda: grain.MapDataset.mix([seeded(source())[i::3] for i in range(3)])),
        (lambda: grain.MapDataset.concatenate([seeded(source(8)), seeded(source(9))]), lambda: seeded(grain.MapDataset.concatenate([source(8), source(9)]))),
        (
            lambda: grain.IterDataset.mix([seeded(source(count)).to_iter_dataset(LIGHT) for count in (8, 9)]),
            lambda: grain.IterDataset.mix([seeded(source(count), salt=str(count)).to_iter_dataset(LIGHT) for count in (8, 9)]),
        ),
        (
            lambda: grain.experimental.InterleaveIterDataset([seeded(source(count)) for count in (8, 9)], cycle_length=2),
            lambda: grain.experimental.InterleaveIterDataset([seeded(source(count), salt=str(count)) for count in (8, 9)], cycle_length=2),
        ),
        (
            lambda: grain.IterDataset.mix([gdx.DeviceLoader(loader(gdx.SeedRecords(), batch(), seed=seed), NOISE) for seed in (3, 4)]),
            lambda: grain.IterDataset.mix([gdx.DeviceLoader(loader(gdx.SeedRecords(), batch(), seed=seed), NOISE) for seed in (3, 400)]),
        ),
    ],
    "neighbouring seeds": [
        (lambda: [seeded(source()).shuffle(seed=1)[:24], seeded(source()).shuffle(seed=1)[24:]], lambda: [seeded(source())[:24], seeded(source())[24:]]),
        (lambda: [seeded(source())[0::2], seeded(source())[0::3]], lambda: [seeded(source())[0::2], seeded(source())[1::2]]),
        (lambda: [loader(gdx.SeedRecords(), batch(), seed=seed) for seed in (5, 6)], lambda: [loader(gdx.SeedRecords(), batch(), seed=seed) for seed in (5, 37)]),
        (lambda: [loader(AddNoise(), batch(), seed=5, epochs=2), loader(AddNoise(), batch(), seed=68)], lambda: [loader(AddNoise(), batch(), seed=5, epochs=2), loader(AddNoise(), batch(), seed=69)]),
        (lambda: [loader(AddNoise(), batch(), seed=5, epochs=None), loader(AddNoise(), batch(), seed=68)], lambda: [loader(AddNoise(), batch(), seed=68, epochs=None), loader(batch(), seed=69)]),
        (lambda: [loader(gdx.SeedRecords(), batch(), seed=5), loader(gdx.SeedRecords(), batch(), seed=5)], lambda: [loader(gdx.SeedRecords(), batch(), seed=5), loader(gdx.SeedRecords(salt="v"), batch(), seed=5)]),
        (lambda: [seeded(source()), seeded(source(9))], lambda: [seeded(source()), source(9).random_map(gdx.SeedRecords(), seed=8)]),
    ],
    "SeedRecords missing": [
        (lambda: loader(batch(), gdx.AugmentBatch(NOISE)), lambda: loader(gdx.SeedRecords(), batch(), gdx.AugmentBatch(NOISE))),
        (lambda: gdx.DeviceLoader(loader(batch()), NOISE), lambda: gdx.DeviceLoader(loader(gdx.SeedRecords(), batch()), NOISE)),
        (lambda: gdx.DeviceLoader(source().batch(4), NOISE), lambda: gdx.DeviceLoader(source().map(with_seed).batch(4), NOISE)),
        (lambda: source().batch(4).map(gdx.AugmentBatch(NOISE)), lambda: source().random_map(gdx.AugmentRecord(NOISE), seed=1).batch(4)),
    ],
    "SeedRecords twice": [
        (lambda: loader(gdx.SeedRecords(), gdx.SeedRecords(), batch()), lambda: loader(gdx.SeedRecords(), batch())),
        (lambda: seeded(source()).random_map(gdx.SeedRecords(salt="again"), seed=8), lambda: seeded(source())),
    ],
    "SeedRecords behind shuffle": [
        (lambda: seeded(source().shuffle(seed=1)), lambda: seeded(source()).shuffle(seed=1)),
        (lambda: seeded(source().shuffle(seed=1)), lambda: seeded(source().shuffle(seed=1), key="label")),
    ],
    "children with one seed": [
        (lambda: loader(gdx.SeedRecords(), Halves(), batch()), lambda: loader(gdx.SeedRecords(), gdx.SeedChildren(Halves()), batch())),
    ],
    "sharding in the sampler": [
        (lambda: loader(batch(), sampler_shards=HOST, shards=HOST), lambda: loader(batch(), shards=HOST)),
        (lambda: loader(batch(), sampler_shards=BY_PROCESS, shards=BY_PROCESS), lambda: loader(batch(), shards=BY_PROCESS)),
        (lambda: loader(batch(), sampler_shards=HOST, shards=grain.sharding.NoSharding()), lambda: loader(batch(), shards=grain.sharding.NoSharding())),
        (lambda: loader(batch(), sampler_shards=HOST), lambda: loader(batch())),
    ],
    "a chain that draws nothing": [
        (lambda: gdx.DeviceLoader(loader(gdx.SeedRecords(), batch()), FIXED), lambda: gdx.DeviceLoader(loader(gdx.SeedRecords(), batch(), shuffle=False), FIXED)),
        (lambda: seeded(source()).shuffle(seed=1).batch(4).map(gdx.AugmentBatch(FIXED)), lambda: seeded(source()).shuffle(seed=1).batch(4).map(gdx.AugmentBatch(NOISE))),
        (lambda: seeded(source()).shuffle(seed=1).batch(4).map(gdx.AugmentBatch(within(gdx.Sequential, 1.0))), lambda: seeded(source()).shuffle(seed=1).batch(4).map(gdx.AugmentBatch(within(gdx.Sequential, 0.5)))),
    ],
    "augmentation in workers": [
        (lambda: loader(gdx.SeedRecords(), batch(), gdx.AugmentBatch(NOISE), workers=2), lambda: gdx.DeviceLoader(loader(gdx.SeedRecords(), batch(), workers=2), NOISE)),
        (lambda: loader(gdx.AugmentRecord(NOISE), batch(), workers=2), lambda: loader(gdx.AugmentRecord(NOISE), batch())),
        (
            lambda: with_workers(seeded(source()).batch(4).map(gdx.AugmentBatch(NOISE)).to_iter_dataset(LIGHT)),
            lambda: with_workers(seeded(source()).batch(4).to_iter_dataset(LIGHT)).map(gdx.AugmentBatch(NOISE)),
        ),
    ],
    "ReadOptions that cost more than the work": [
        (lambda: loader(batch(), epochs=100, read_options=None, count=3000), lambda: loader(batch(), epochs=100, count=3000)),
        (lambda: source(3000).map(dict).to_iter_dataset(), lambda: source(3000).map(dict).to_iter_dataset(LIGHT)),
        (lambda: source(3000).map(dict).to_iter_dataset(), lambda: source(3000).map(dict).batch(4).to_iter_dataset()),
    ],
    "drop_remainder=False with a sharding": [
        (lambda: loader(batch(5, False), shards=HOST), lambda: loader(batch(5), shards=HOST)),
        (lambda: loader(batch(5, False), shards=HOST), lambda: loader(batch(4, False), shards=HOST)),
        (lambda: loader(batch(4, False), shards=HOST, workers=3), lambda: loader(batch(4, False), shards=HOST, workers=2)),
        (lambda: loader(Keep(), batch(4, False), shards=HOST), lambda: loader(batch(4, False), Keep(), shards=HOST)),
        (lambda: source()[1::2].batch(5), lambda: source()[1::2].repeat().batch(5)),
        (lambda: source()[1::2].to_iter_dataset(LIGHT).batch(5), lambda: source().to_iter_dataset(LIGHT).batch(5)),
        (lambda: gdx.DeviceLoader(source().batch(5), []), lambda: gdx.DeviceLoader(source().batch(5), [], pad_last_batch=True)),
        (lambda: gdx.DeviceLoader(source().batch(5), []), lambda: gdx.DeviceLoader(source().batch(5), [], sharding=ONE_DEVICE)),
    ],
}  # fmt: skip
CASES = {f"{trap}-{place}": (trap, *pair) for trap, pairs in TRAPS.items() for place, pair in enumerate(pairs)}


def with_seed(record):
    return record | {"record_seed": gdx.child_seed(np.uint32([1, 2]), record["label"])}


def check(pipelines, program=GOOD_PROGRAM):
    several = pipelines if isinstance(pipelines, list) else [pipelines]
    return report_of(several, program, accelerator=True)


@pytest.mark.parametrize(("trap", "bad", "mended"), CASES.values(), ids=CASES)
def test_a_trap_is_found_where_it_is_and_nowhere_else(trap, bad, mended):
    found = check(bad()).findings
    assert trap in {finding.trap for finding in found}
    assert all(finding.where and finding.why and finding.change.endswith(".") for finding in found)
    assert trap not in {finding.trap for finding in check(mended()).findings}


# Those whose mended pipeline is still in another trap, such as a slice without `drop_remainder`.
OTHERWISE_FREE = [name for name in CASES if not name.startswith(("drop_remainder", "augmentation in workers-1"))]


@pytest.mark.parametrize("name", OTHERWISE_FREE)
def test_a_mended_pipeline_is_free_of_all_traps(name):
    assert not check(CASES[name][2]()).findings


def tutorials():
    """Pipelines as Grain's own tutorials build them, each in a program of its own."""
    small, dataset = [1, 2, 3, 4, 5, 6, 7, 8], grain.MapDataset.source(records(24))
    shards = grain.sharding.ShardOptions(shard_index=0, shard_count=1, drop_remainder=True)
    sampler = grain.samplers.IndexSampler(24, num_epochs=2, shard_options=shards, shuffle=True, seed=0)
    transforms = [AddNoise(), grain.transforms.Batch(8, drop_remainder=True)]
    return {
        "data loader": grain.DataLoader(data_source=records(24), sampler=sampler, operations=transforms, worker_count=0),
        "data loader with workers": grain.DataLoader(
            data_source=records(24), sampler=sampler, operations=transforms, worker_count=2
        ),
        "load": grain.load(records(24), shuffle=True, seed=1, batch_size=8, transformations=[AddNoise()]),
        "range": grain.MapDataset.range(10).shuffle(seed=42).map(lambda x: x * 2).batch(2),
        "global seed": grain.MapDataset.source(small).seed(10).shuffle().map(str).to_iter_dataset(),
        "random map": dataset.seed(1).shuffle().random_map(AddNoise()).batch(4),
        "filter": dataset.filter(Keep()).map(dict).to_iter_dataset().batch(4),
        "mixture": grain.MapDataset.mix([dataset.shuffle(seed=1).repeat(), dataset.shuffle(seed=2).repeat()], [0.3, 0.7]),
        "prefetching": with_workers(dataset.seed(1).shuffle().random_map(AddNoise()).batch(4).to_iter_dataset()),
        "sharded": dataset.shuffle(seed=1)[0::2].batch(4, drop_remainder=True),
        "window shuffle": grain.experimental.WindowShuffleIterDataset(dataset.to_iter_dataset(), window_size=4, seed=1),
        "interleaved": grain.experimental.InterleaveIterDataset([dataset.map(dict), dataset[:8]], cycle_length=2),
    }  # fmt: skip


@pytest.mark.parametrize("name", tutorials())
def test_pipelines_of_grains_tutorials_are_read_without_complaint(name):
    assert not check(tutorials()[name]).findings


def test_what_cannot_be_seen_is_said():
    class Sampler:
        def __getitem__(self, index):
            raise IndexError

    def decode(record):
        return record

    unseen = " ".join(check(source()[:8].map(decode).random_map(AddNoise(), seed=1)).unseen)
    assert "what is done inside decode, AddNoise:" in unseen
    assert "whether dataset[0:8:1] is the share of a host" in unseen
    assert "other pipelines of the program" in unseen
    bare = grain.DataLoader(
        data_source=[0], sampler=Sampler(), shard_options=grain.sharding.NoSharding(), operations=[len]
    )
    unseen = " ".join(check([bare, source()]).unseen)
    assert "how Sampler seeds, shuffles and shards" in unseen
    assert "what operations[0] of the DataLoader, len does" in unseen
    assert "other pipelines" not in unseen
    hidden = Program(path=None, guarded=None, flags_parsed=True)
    assert "`__main__` guard" in " ".join(check(loader(batch(), workers=2), hidden).unseen)


@pytest.mark.parametrize("given", [None, 3, "loader", [source()]])
def test_what_is_no_pipeline_is_refused(given):
    with pytest.raises(TypeError, match=r"`pipelines` must be loaders or datasets: got .*Pass a grain\.DataLoader"):
        gdx.check_pipeline(given)
    with pytest.raises(TypeError, match="not its iterator"):
        gdx.check_pipeline(iter(loader(batch())))
    with pytest.raises(ValueError, match="`pipelines` must hold at least one: got none"):
        gdx.check_pipeline()


@pytest.fixture
def unparsed_flags():
    flags.FLAGS.unparse_flags()
    yield
    flags.FLAGS.mark_as_parsed()


PROGRAMS = {
    "calls": ("def make(): ...\nmake()\n", False, False),
    "iterates": ("import grain\nfor batch in grain.make(): ...\n", False, False),
    "guarded": ("def make(): ...\nif __name__ == '__main__':\n    make()\n", True, False),
    "run by absl": (
        "from absl import app\ndef main(_): ...\nif __name__ == '__main__':\n    app.run(main)\n",
        True,
        True,
    ),
    "marks flags": ("import absl.flags\nabsl.flags.FLAGS.mark_as_parsed()\n", False, True),
    "a module": ("def make(): ...\n", True, False),
}


@pytest.mark.parametrize(("text", "guarded", "parses"), PROGRAMS.values(), ids=PROGRAMS)
@pytest.mark.usefixtures("unparsed_flags")
def test_a_program_with_workers_is_read_for_its_guard_and_its_flags(tmp_path, text, guarded, parses):
    (tmp_path / "train.py").write_text(text)
    program = Program.of_file(tmp_path / "train.py")
    assert (program.guarded, program.flags_parsed) == (guarded, parses)
    found = {finding.trap for finding in check(loader(batch(), workers=2), program).findings}
    assert ("no __main__ guard" in found, "unparsed absl flags" in found) == (not guarded, not parses)
    assert not check(loader(batch()), program).findings  # which starts no workers


@pytest.mark.usefixtures("unparsed_flags")
def test_this_program_is_asked_itself_whether_it_parsed_flags():
    assert not Program.running().flags_parsed
    flags.FLAGS.mark_as_parsed()
    assert Program.running().flags_parsed


MODULE = """
import sys
import grain, grain_datarax as gdx

SOURCE = grain.MapDataset.source([{"image": 0}] * 8)
free = lambda: SOURCE.random_map(gdx.SeedRecords(), seed=7)[1::2]
trapped = lambda: {"train": SOURCE[1::2].random_map(gdx.SeedRecords(), seed=7), "validation": SOURCE}
iterator = lambda: iter(free())
exits = lambda: sys.exit("usage")
fails = lambda: 1 / 0
with_workers = lambda: grain.DataLoader(
    data_source=SOURCE, sampler=grain.samplers.SequentialSampler(8), worker_count=2,
    operations=[gdx.SeedRecords(), grain.transforms.Batch(4), gdx.AugmentBatch(gdx.Chain([gdx.GaussianNoise()], seed=0))],
)
"""
COMMANDS = {
    "free": (["pipelines_of_mine:free"], 0, "No traps found."),
    "trapped": (["pipelines_of_mine:trapped"], 1, "random_map on the share of a host: pipeline 1, random_map(SeedRecords()) behind dataset[1:8:2]"),
    "accelerator": (["pipelines_of_mine:with_workers", "--accelerator"], 1, "augmentation in workers"),
    "an iterator": (["pipelines_of_mine:iterator"], 2, "`pipelines` must be loaders or datasets"),
    "fails": (["pipelines_of_mine:fails"], 2, "raised ZeroDivisionError"),
    "exits": (["pipelines_of_mine:exits"], 2, "raised SystemExit: usage"),
    "no function": (["pipelines_of_mine:none"], 2, "raised AttributeError"),
    "no module": (["no_module_of_mine:free"], 2, "raised ModuleNotFoundError"),
    "no colon": (["pipelines_of_mine.free"], 2, "`function` must be module:function"),
    "empty": ([":"], 2, "`function` must be module:function"),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "status", "said"), COMMANDS.values(), ids=COMMANDS)
def test_the_command_ends_with_the_status_that_it_documents(tmp_path, monkeypatch, capsys, arguments, status, said):
    (tmp_path / "pipelines_of_mine.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "pipelines_of_mine", raising=False)
    if status:
        with pytest.raises(SystemExit) as ended:
            main(["check", *arguments])
        assert ended.value.code == status
    else:
        main(["check", *arguments])
    printed = capsys.readouterr()
    assert said in (printed.err if status == 2 else printed.out)
    assert bool(printed.err) == (status == 2)


@pytest.mark.long
def test_the_command_runs_in_a_shell(tmp_path):
    (tmp_path / "pipelines_of_mine.py").write_text(MODULE)
    command = [sys.executable, "-m", "grain_datarax", "check", "pipelines_of_mine:trapped"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 1, ended.stderr
    assert ended.stdout.startswith("1 trap found:\nrandom_map on the share of a host: pipeline 1")


# What DeviceLoader says itself: the same pipelines in a run where numbers are wrong, each beside the same one, mended.
WORST = [
    "RandomMap behind Batch-1",
    "epochs that repeat-0",
    "one seed for two stages-1",
    "one seed for mixed datasets-0",
]


@pytest.mark.parametrize("name", WORST)
def test_a_device_loader_says_the_worst_once(name):
    trap, bad, mended = CASES[name]
    as_batches = (
        (lambda data: data) if trap == "RandomMap behind Batch" else (lambda data: data.batch(4, drop_remainder=True))
    )
    with gdx.DeviceLoader(as_batches(bad()), sharding=ONE_DEVICE) as batches:
        with pytest.warns(
            UserWarning, match=f"`source` must be free of traps: got {trap}, .* See grain_datarax.check_pipeline"
        ):
            iter(batches)
        with warnings.catch_warnings(action="error"):
            iter(batches)
    with (
        gdx.DeviceLoader(as_batches(mended()), sharding=ONE_DEVICE) as batches,
        warnings.catch_warnings(action="error"),
    ):
        iter(batches)


def test_a_slice_that_shares_out_nothing_here_is_not_warned_of():
    with gdx.DeviceLoader(seeded(source()[::2]).batch(8), NOISE, sharding=ONE_DEVICE) as batches:
        assert next(iter(batches))["image"].shape[0] == 8


@pytest.mark.long
def test_a_device_loader_says_what_is_wrong_with_the_program_before_workers_start(tmp_path):
    (tmp_path / "train.py").write_text(
        textwrap.dedent(
            """
            import grain, numpy as np, grain_datarax as gdx

            loader = grain.DataLoader(
                data_source=[{"image": np.zeros((4, 4, 3), np.uint8)}] * 8,
                sampler=grain.samplers.IndexSampler(8, num_epochs=1, seed=0),
                operations=[gdx.SeedRecords(), grain.transforms.Batch(4)],
                worker_count=1,
            )
            for batch in gdx.DeviceLoader(loader, gdx.Chain([gdx.GaussianNoise()], seed=0)):
                print("batch")
            """
        )
    )
    ended = subprocess.run([sys.executable, "train.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode != 0
    assert "batch" not in ended.stdout
    said = [line for line in ended.stderr.splitlines() if "`source` must be free of traps" in line]
    assert any("unparsed absl flags" in line for line in said)
    assert any("no __main__ guard" in line for line in said)


def test_the_share_of_a_host_is_among_the_worst_only_where_there_are_hosts():
    last = read_pipeline(source()[1::2].random_map(AddNoise(), seed=1))
    worst = {
        count: [finding.worst for finding in find_traps(last, Surroundings(processes=count))] for count in (1, 2, 3)
    }
    assert worst == {1: [False], 2: [True], 3: [False]}
