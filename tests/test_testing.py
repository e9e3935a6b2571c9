"""The checks of `grain_datarax.testing`: what keeps the promise passes, and what breaks it is named."""

import functools
import multiprocessing
import pathlib
import re
import threading
import time

import absl.flags
import grain
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import public_pipelines as public
import pytest
import sound_pipelines as sound
import trap_pipelines as traps
from sources import Records

import grain_datarax as gdx
from grain_datarax.testing import (
    assert_epochs_differ,
    assert_hosts_differ,
    assert_reproducible,
    assert_resumable,
)
from grain_datarax.testing.comparison import compare, difference
from grain_datarax.testing.process import in_second_process
from grain_datarax.testing.rows import Reading, Row, read
from grain_datarax.testing.verdict import failed

pytestmark = pytest.mark.once

IN_PROCESS = ("second_run", "batch_size", "per_record", "shard_count", "resume")


def report_of(check, make, **arguments):
    """The report, whether the check passes or not."""
    try:
        return check(make, **arguments)
    except AssertionError as error:
        return error.args[0]


def axes_for(make, *without):
    """Those that can be varied in this process."""
    names = make.__code__.co_varnames[: make.__code__.co_argcount]
    needs = {"batch_size": "batch_size", "per_record": "per_record", "shard_count": "shard_index"}
    taken = {*names, "shard_index"} if "shard_options" in names else {*names}
    return [axis for axis in IN_PROCESS if needs.get(axis, "batch_size") in taken and axis not in without]


SOUND = {make.__name__: make for make in (sound.data_loader, sound.device_loader, sound.dataset)}


@pytest.mark.parametrize("make", [sound.data_loader, sound.dataset])
def test_a_sound_pipeline_passes_in_this_process(make):
    report = assert_reproducible(make, key="label", records=30, axes=IN_PROCESS, batch_sizes=(8, 3))
    assert [line.compared for line in report.lines] == [30, 30, 30, 30, 22, 14]


@pytest.mark.long
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(make, marks=[pytest.mark.thorough] * (name != "device_loader"), id=name)
        for name, make in SOUND.items()
    ],
)
def test_a_sound_pipeline_passes_over_the_whole_matrix(make):
    report = assert_reproducible(make, key="label", batch_sizes=(8, 3), resume_steps=(3,))
    takes_records = make is not sound.device_loader
    assert [line.tried for line in report.lines] == [
        "second run",
        "second process",
        "batch_size=3",
        *["per_record=True"] * takes_records,
        "worker_count=2",
        "shard_count=2",
        "batch_size=8, worker_count=2, shard_count=2",
        "resume at step 3 of 5, worker_count=0",
        f"resume at step 3 of {5 if make is sound.dataset else 6}, worker_count=2",  # each of two fills its own
    ]
    assert [line.compared for line in report.lines[:6]] == [40] * 6
    assert report.notes == () if takes_records else ("not tried: per_record (device_loader has no `per_record`)",)


TRAPS = {
    "RandomMap behind Batch": (traps.random_map_behind_batch, {"batch_size", "shard_count"}),
    "random_map behind a host slice": (traps.host_slice_before_random_map, {"shard_count"}),
    "IterDataset.random_map on shards": (traps.iter_random_map_on_shards, {"shard_count"}),
    "sharding in the sampler as well": (traps.sampler_and_loader_sharded, {"shard_count"}),
    "sharding in the sampler alone": (traps.sampler_sharded_alone, {"shard_count"}),
    "the host in the seed": (traps.host_in_the_seed, {"shard_count"}),
    "global np.random": (traps.global_random_state, {"second_run", "batch_size", "resume"}),
    "a device key and a step counter": (traps.key_and_step_counter, {"batch_size", "resume"}),
    "state beside the checkpoint": (traps.state_beside_the_checkpoint, {"resume"}),
    "records lost": (traps.losing_records, {"shard_count"}),
    "a shuffle without a seed": (traps.reshuffled, {"second_run", "resume"}),
}


@pytest.mark.parametrize(("make", "wrong"), TRAPS.values(), ids=TRAPS)
def test_a_trap_is_named_by_its_axes_and_no_others(make, wrong):
    report = report_of(assert_reproducible, make, key="label", axes=axes_for(make))
    assert {*report.faulty} == wrong


@pytest.mark.long
def test_a_filter_in_front_of_iter_random_map_is_named_by_the_workers():
    make, axes = traps.filter_before_iter_random_map, ("second_run", "batch_size", "worker_count")
    report = report_of(assert_reproducible, make, key="label", axes=axes)
    assert report.faulty == ("worker_count",)
    assert len(report.lines[-1].changed) == 8  # those of the second worker
    assert report.lines[-1].missing == report.lines[-1].extra == ()


@pytest.mark.long
def test_draws_that_follow_from_hashes_are_named_by_the_second_process():
    axes = ("second_run", "second_process", "batch_size", "resume")
    assert report_of(assert_reproducible, traps.seeded_by_hash, key="label", axes=axes).faulty == ("second_process",)


def test_the_table_tells_axis_records_field_place_and_both_values():
    axes = ("second_run", "batch_size")
    with pytest.raises(AssertionError) as raised:
        assert_reproducible(traps.key_and_step_counter, key="label", axes=axes, batch_sizes=(4, 2), records=8)
    lines = str(raised.value).splitlines()
    assert lines[0] == "8 records of key_and_step_counter, against batch_size=4:"
    assert re.split(r"\s{2,}", lines[2].strip()) == ["tried", "compared", "changed", "missing", "extra"]
    assert re.split(r"\s{2,}", lines[3]) == ["ok", "second run", "8", "0", "0", "0"]
    assert re.split(r"\s{2,}", lines[4]) == ["WRONG", "batch_size=2", "8", "6", "0", "0"]
    noise = [batch["noise"] for size in (4, 2) for batch in traps.key_and_step_counter(size)]
    before, after = noise[0][2, 0], noise[7][0, 0]
    assert lines[6] == (
        f"batch_size=2: record 2: `noise`[0] is {after!s}, not {before!s}. Changed are 2, 3, 4, 5, 6, 7"
    )
    left_out = "second_process, per_record, worker_count, shard_count, together, resume"
    assert lines[7:] == [
        f"not tried: {left_out} (left out by `axes`)",
        "not looked at: lost and doubled records (there are more than `records`=8)",
    ]


@pytest.mark.long
def test_what_cannot_be_varied_is_said_and_refused_where_it_was_asked_for():
    fixed = functools.partial(traps.generator, batch_size=4)
    report = assert_reproducible(fixed, key="label", shard_counts=(1,), worker_counts=(0,), timeout=60)
    assert [line.tried for line in report.lines] == ["second run", "second process"]
    assert report.notes == (
        "not tried: batch_size (generator has no `batch_size`)",
        "not tried: per_record (generator has no `per_record`)",
        "not tried: worker_count (generator has no `worker_count`)",
        "not tried: shard_count (generator has no `shard_options`, nor `shard_index` and `shard_count`)",
        "not tried: together (fewer than two of batch_size, worker_count, shard_count can be varied)",
        "not tried: resume (its iterator has no `get_state` and `set_state`)",
    )
    with pytest.raises(ValueError, match="got resume, but its iterator has no `get_state`"):
        assert_reproducible(fixed, key="label", axes=("resume",))
    with pytest.raises(ValueError, match="got batch_size, but one value alone was asked for, 8"):
        assert_reproducible(sound.dataset, key="label", axes=("batch_size",), batch_sizes=(8,))


def test_dropped_remainders_are_told_from_lost_and_from_doubled_records():
    def make(batch_size, shard_index, shard_count, doubled=0):
        shard = traps.source(23).random_map(traps.noisy, seed=7)[shard_index::shard_count]
        shard = grain.MapDataset.concatenate([shard, shard[:doubled]]) if doubled and shard_count > 1 else shard
        return shard.batch(batch_size, drop_remainder=True)

    axes = ("batch_size", "shard_count")
    report = assert_reproducible(make, key="label", axes=axes, batch_sizes=(4, 1, 8))
    assert [(len(line.missing), len(line.extra)) for line in report.lines] == [(0, 3), (4, 0), (2, 2)]
    doubled = functools.partial(make, doubled=4)
    report = report_of(assert_reproducible, doubled, key="label", axes=axes, batch_sizes=(4, 1, 8))
    assert report.faulty == ("shard_count",)
    assert report.lines[-1].faults[0].startswith("8 records new or doubled, of which dropped remainders explain 3: ")


def test_each_epoch_may_drop_a_remainder_of_shards():
    def make(shard_options):
        return traps.data_loader([grain.transforms.Batch(1)], shard_options, shard_options, epochs=2)

    report = assert_reproducible(make, key="label", axes=("shard_count",), shard_counts=(5,))
    assert [len(line.missing) for line in report.lines] == [2 * (traps.COUNT % 5)]


def test_lost_and_doubled_records_are_looked_for_only_where_all_were_read():
    check = functools.partial(report_of, assert_reproducible, key="label", axes=("shard_count",), fields=("label",))
    cut, whole = (check(traps.sampler_and_loader_sharded, records=count) for count in (12, traps.COUNT))
    assert (cut.faulty, whole.faulty) == ((), ())
    assert cut.lines[0].compared < 12
    assert (cut.lines[0].missing, cut.lines[0].extra) == ((), ())
    assert cut.notes[1:] == ("not looked at: lost and doubled records (there are more than `records`=12)",)
    assert whole.notes[1:] == ()


def test_records_are_copied_and_iterators_closed():
    class Reused:
        def __init__(self):
            self.closed, self.count, self.buffer = False, 0, np.zeros((2, 1))

        def __iter__(self):
            return self

        def __next__(self):
            if self.count == 3:
                raise StopIteration
            self.count += 1
            self.buffer[:] = self.count
            return {"label": self.buffer}

        def close(self):
            self.closed = True

    pipeline = Reused()
    assert [row.leaves["label"].item() for row in read(pipeline, Reading(None), 9).rows] == [1, 1, 2, 2, 3, 3]
    assert pipeline.closed


def test_records_are_told_apart_by_paths_by_functions_and_by_several_fields():
    def make(batch_size):
        records = [{"meta": {"set": place % 2, "id": place // 2}, "name": f"{place:04}"} for place in range(8)]
        return grain.MapDataset.source(records).random_map(traps_noise, seed=7).batch(batch_size)

    def traps_noise(record, rng):
        return {**record, "noise": rng.random()}

    for key in ("name", ("meta.set", "meta.id"), lambda record: record["meta"]["set"] * 100 + record["meta"]["id"]):
        report = assert_reproducible(make, key=key, axes=("batch_size",))
        assert [line.compared for line in report.lines] == [8, 8]
    with pytest.raises(KeyError, match="`idd` must be a field"):
        assert_reproducible(make, key="idd")
    with pytest.raises(TypeError, match="`key` must tell records apart by numbers"):
        assert_reproducible(make, key=lambda record: {1})


def test_a_row_without_a_key_is_padding():
    def make():
        batch_fn = functools.partial(grain.experimental.batch_and_pad, batch_size=5, pad_value=-1)
        return traps.source(8).batch(5, batch_fn=batch_fn)

    def key(record):
        return None if record["label"] < 0 else record["label"]

    report = assert_reproducible(make, key=key, axes=("second_run", "resume"))
    assert [line.compared for line in report.lines] == [8, 3]


def test_only_the_fields_that_were_asked_for_are_compared():
    def make(batch_size):
        return traps.source().batch(batch_size).to_iter_dataset().map(traps.StepKeys())

    assert_reproducible(make, key="label", axes=("batch_size",), fields=("image", "label"))
    with pytest.raises(AssertionError, match="`noise`"):
        assert_reproducible(make, key="label", axes=("batch_size",), fields=("noise",))


def test_a_pipeline_of_single_records_or_of_tuples_is_read_too():
    def singles():
        return ((record["image"], record["label"]) for record in Records(6))

    report = assert_reproducible(singles, key=1, batched=False, axes=("second_run",))
    assert report.lines[0].compared == 6
    with pytest.raises(ValueError, match=r"Pass batched=False"):
        assert_reproducible(singles, key=1, axes=("second_run",))


def test_arguments_of_the_wrong_kind_are_refused():
    with pytest.raises(TypeError, match="`make_pipeline` must be a function"):
        assert_reproducible(sound.dataset(), key="label")
    with pytest.raises(
        TypeError, match=r"got folder. Give it a default, or pass functools.partial\(make_pipeline, folder"
    ):
        assert_reproducible(lambda folder: folder, key="label")
    with pytest.raises(ValueError, match="got batch_size, but dataset has no `batch_size`"):
        assert_reproducible(functools.partial(sound.dataset, batch_size=4), key="label", axes=("batch_size",))
    with pytest.raises(ValueError, match="`axes` must be of second_run, .* got batches"):
        assert_reproducible(sound.dataset, key="label", axes=("batches",))
    with pytest.raises(ValueError, match=r"`batch_sizes` must be 1 or more: got \(0,\)"):
        assert_reproducible(sound.dataset, key="label", batch_sizes=(0,))
    with pytest.raises(
        ValueError, match=r"`resume_steps` must leave something of the 5 batches: got \[5\]. Pass 1 to 4"
    ):
        assert_reproducible(sound.dataset, key="label", axes=("resume",), batch_sizes=(8,), resume_steps=(1, 5))
    with pytest.raises(TypeError, match="`make_pipeline` must take `shard_options`"):
        assert_hosts_differ(traps.one_epoch)
    with pytest.raises(ValueError, match="`make_pipeline` must have records for each shard: got 1, 0"):
        assert_hosts_differ(
            lambda shard_index, shard_count: traps.source(1)[shard_index::shard_count].batch(1), drawn="label"
        )
    with pytest.raises(ValueError, match=r"`steps` must lie within the 6 batches: got \[6\]. Pass 0 to 5"):
        assert_resumable(traps.Moving, steps=(6,))


def test_what_a_run_raises_is_told_in_its_line_and_the_others_go_on():
    def make(batch_size):
        if batch_size == 1:
            raise RuntimeError("no such size")
        return traps.seeded_by_hash(batch_size)

    report = report_of(assert_reproducible, make, key="label", axes=("second_run", "batch_size"))
    assert [(line.tried, line.faults) for line in report.lines] == [
        ("second run", ()),
        ("batch_size=1", ("raised RuntimeError: no such size",)),
        ("batch_size=8", ()),
    ]


def test_workers_without_parsed_flags_are_told_what_to_call():
    line = failed("worker_count", "worker_count=2", absl.flags.UnparsedFlagAccessError("Trying to access flag"))
    assert line.faults[0].endswith("Call absl.flags.FLAGS.mark_as_parsed() first (google/grain#1355)")


HOSTS_ALIKE = {
    "a host slice at the source": (traps.host_slice_before_random_map, 12),
    "IterDataset.random_map on shards": (traps.iter_random_map_on_shards, 12),
    "neighbouring seeds": (traps.host_in_the_seed, 11),
}


@pytest.mark.parametrize(("make", "count"), HOSTS_ALIKE.values(), ids=HOSTS_ALIKE)
def test_hosts_that_draw_alike_are_found(make, count):
    report = report_of(assert_hosts_differ, make, drawn="noise", key="label")
    assert [(line.tried, line.compared, len(line.changed)) for line in report.lines] == [("shards 0, 1", 12, count)]


def test_each_pair_of_shards_is_compared():
    first = functools.partial(report_of, assert_hosts_differ, drawn=lambda record: record["noise"][:1], shard_count=3)
    report = first(traps.host_slice_before_random_map)
    assert report.faulty == ("shards 0, 1", "shards 0, 2", "shards 1, 2")


def test_hosts_that_draw_for_themselves_pass():
    def seeded(shard_options):
        return sound.loader([gdx.SeedRecords(), grain.transforms.Batch(4)], shard_options=shard_options)

    assert len(assert_hosts_differ(seeded, shard_count=4).lines) == 6
    assert_hosts_differ(traps.random_map_behind_batch, drawn="noise")
    with pytest.raises(KeyError, match="keep_seed=True"):
        assert_hosts_differ(sound.data_loader)


def test_a_coin_that_falls_alike_here_and_there_is_no_repeat_but_a_whole_shard_is():
    def toss(record, rng):
        return {**record, "coin": rng.integers(2)}

    def make(shard_index, shard_count, epoch=0, cut_first=False):
        cut = slice(shard_index, None, shard_count)
        source = traps.source(64)
        dataset = source.slice(cut).random_map(toss, seed=1) if cut_first else source.random_map(toss, seed=1 + epoch)
        return dataset.batch(4) if cut_first else dataset.slice(cut).batch(4)

    assert_hosts_differ(make, drawn="coin")
    assert_epochs_differ(make, key="label", drawn="coin")
    with pytest.raises(AssertionError, match="32 *32\n"):
        assert_hosts_differ(functools.partial(make, cut_first=True), drawn="coin")
    with pytest.raises(AssertionError, match="drew what record 0 had drawn"):
        assert_epochs_differ(functools.partial(make, epoch=0), key="label", drawn="coin")


def test_a_few_draws_in_common_are_chance_unless_they_are_seeds():
    def make(shard_index, shard_count, epoch=0, alike=5):
        place = shard_index % shard_count + epoch
        noise = [1000 * place + number if number >= alike else number for number in range(32)]
        records = [{"label": label, "noise": value} for label, value in enumerate(noise)]
        rolled = records if not epoch else records[1:] + records[:1]
        shifted = [{**record, "noise": other["noise"]} for record, other in zip(records, rolled, strict=True)]
        return grain.MapDataset.source(shifted).batch(4)

    def seeded(shard_index, shard_count):
        return make(shard_index, shard_count, alike=1).map(lambda batch: {"record_seed": batch["noise"]})

    assert_hosts_differ(make, drawn="noise")
    assert_epochs_differ(make, key="label", drawn="noise")
    six = functools.partial(make, alike=6)
    assert len(report_of(assert_hosts_differ, six, drawn="noise").lines[0].changed) == 6
    assert len(report_of(assert_epochs_differ, six, key="label", drawn="noise").lines[0].changed) == 6
    assert len(report_of(assert_hosts_differ, seeded).lines[0].changed) == 1


def test_one_record_that_draws_the_same_again_is_told():
    def make(epoch):
        records = [{"label": label, "noise": label + 100 * epoch * (label > 0)} for label in range(8)]
        return grain.MapDataset.source(records).batch(4)

    assert report_of(assert_epochs_differ, make, key="label", drawn="noise").lines[0].changed == (0,)


def test_a_coin_that_falls_alike_in_the_few_records_of_a_last_epoch_is_no_repeat():
    def make(count):
        coins = [0, 1] * 8
        records = [{"label": label, "coin": coin} for label, coin in enumerate(coins)]
        return grain.MapDataset.source(records).repeat(2)[:count].batch(1)

    one = functools.partial(report_of, assert_epochs_differ, key="label", drawn="coin")
    assert one(functools.partial(make, count=16 + 7)).faulty == ()
    assert one(functools.partial(make, count=16 + 8)).faulty == ("epochs in one pass",)


def test_epochs_that_repeat_are_found_and_where_epochs_come_from_is_said():
    one = functools.partial(report_of, assert_epochs_differ, key="label", drawn="noise")
    for make, how in [
        (traps.repeated_without_reseeding, "epochs in one pass"),
        (traps.one_epoch, "a second pass"),
    ]:
        report = one(make)
        assert [(line.tried, len(line.changed)) for line in report.lines] == [(how, traps.COUNT)]
        assert report.faulty == (how,)
    alike = one(traps.one_epoch_each)  # neighbouring sampler seeds share streams, shifted by one
    assert [(line.tried, len(line.changed)) for line in alike.lines] == [("epoch=0, epoch=1", traps.COUNT - 1)]


def test_epochs_that_draw_anew_pass():
    def seeded(batch_size):
        return sound.loader([gdx.SeedRecords(), grain.transforms.Batch(batch_size)], epochs=3)

    report = assert_epochs_differ(seeded, key="label")
    assert [(line.tried, line.compared) for line in report.lines] == [("epochs in one pass", 2 * sound.COUNT)]
    with pytest.raises(ValueError, match="got 8 in epochs in one pass, none of them again"):
        assert_epochs_differ(seeded, key="label", records=8)
    generator = traps.generator(4)
    with pytest.raises(ValueError, match="got 24 in a second pass, none of them again"):
        assert_epochs_differ(lambda: generator, key="label", drawn="noise")


@pytest.mark.parametrize("make", SOUND.values(), ids=SOUND)
def test_a_sound_pipeline_can_be_resumed_and_set_back(make):
    report = assert_resumable(make)
    assert [line.compared for line in report.lines] == [5, 5, 4, 4, 3, 3, 1, 1]
    assert len(assert_resumable(functools.partial(make, batch_size=2), elements=6, steps=(0, 5)).lines) == 4


def test_states_that_cannot_be_resumed_are_told_by_what_was_tried():
    wrong = {
        make: [line.tried for line in report_of(assert_resumable, make, steps=(0, 1)).lines if line.faults]
        for make in (traps.key_and_step_counter, traps.Moving, traps.Unwritable)
    }
    new, back = (
        ["step 0 of {}, new pipeline", "step 1 of {}, new pipeline"],
        ["step 0 of {}, set back", "step 1 of {}, set back"],
    )
    assert wrong == {
        traps.key_and_step_counter: [each.format(3) for each in (back[0], new[1], back[1])],
        traps.Moving: [each.format(6) for each in back],
        traps.Unwritable: [each.format(6) for each in new],
    }
    with pytest.raises(AssertionError, match="got generator without `get_state` and `set_state`"):
        assert_resumable(traps.generator)


NAN = float("nan")


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (np.float32([1, NAN]), np.float32([1, NAN]), ""),
        (np.float32([NAN]), np.array([0x7FC00001], np.uint32).view(np.float32), ""),
        (np.float32([1, 0.0]), np.float32([1, -0.0]), "`x`[1] is -0.0, not 0.0"),
        (np.float32(2), jnp.float32(2), ""),
        (np.array([NAN, 1], ml_dtypes.bfloat16), np.array([NAN, 1], ml_dtypes.bfloat16), ""),
        (np.zeros(2, ml_dtypes.bfloat16), np.array([0, 1], ml_dtypes.bfloat16), "`x`[1] is 1, not 0"),
        (np.zeros((2, 3)), np.zeros((2, 3), np.float32), "`x` is float32 (2, 3), not float64 (2, 3)"),
        (np.zeros((2, 3)), np.zeros((2, 1)), "`x` is float64 (2, 1), not float64 (2, 3)"),
        (np.zeros((0, 3)), np.zeros((0, 3)), ""),
        (3, np.int32(3), ""),
        (0.1, np.float32(0.1), ""),
        (3, np.float32(3), "`x` is float32 (), not int64 ()"),
        (300, np.uint8(44), "`x` is uint8 (), not int64 ()"),
        (3, 4, "`x` is 4, not 3"),
        (True, 1, "`x` is int64 (), not bool ()"),
        (NAN, NAN, ""),
        ("a", np.str_("a"), ""),
        (b"a", "a", "`x` is 'a', not b'a'"),
        (np.array(["a", "bc"]), np.array(["a", "bc   "[:2]], dtype="<U9"), ""),
        (np.array(["a", None], object), np.array(["a", 1], object), "`x`[1] is 1, not None"),
        (None, np.zeros(2), "`x` is array([0., 0.]), not None"),
        (pathlib.Path("a"), pathlib.Path("a"), ""),
        (np.datetime64("NaT", "s"), np.datetime64("NaT", "s"), ""),
    ],
)
def test_records_are_compared_bit_for_bit(before, after, words):
    rows = [Reading(None, batched=False).rows({"x": each}, 0)[0].leaves for each in (before, after)]
    assert difference(*rows) == words


def test_a_field_that_is_missing_or_new_is_told():
    assert difference({"a": 1, "b": 2}, {"a": 1}) == "`b` is missing"
    assert difference({"a": 1}, {"a": 1, "b": 2}) == "`b` is there"


def test_an_axis_that_is_left_out_is_not_varied_together_with_others_either():
    axes = ("batch_size", "shard_count", "together", "resume")
    report = assert_reproducible(sound.dataset, key="label", axes=axes, batch_sizes=(8, 3), resume_steps=(2,))
    assert [line.tried for line in report.lines][2:] == [
        "batch_size=8, shard_count=2",
        "resume at step 2 of 5, worker_count=0",
    ]
    with pytest.raises(ValueError, match="got together, but fewer than two"):
        assert_reproducible(sound.dataset, key="label", axes=("batch_size", "together"))


def test_occurrences_of_a_key_are_compared_in_order_or_as_a_multiset():
    def rows(*values):
        return [Row(key, {"x": value}) for key, value in values]

    before, after = rows((1, 10), (2, 20), (1, 11)), rows((1, 11), (1, 10), (2, 20))
    assert compare(before, after, ordered=False).changed == ()
    found = compare(before, after, ordered=True)
    assert (found.changed, found.first) == ((1, 1), "1: `x` is 11, not 10")
    found = compare(before, rows((1, 10), (1, 12), (3, 30)), ordered=False)
    assert (found.changed, found.missing, found.extra, found.compared) == ((1,), (2,), (3,), 2)


def fails():
    raise LookupError("nothing there")


def returns_what_cannot_be_pickled():
    return threading.Lock()


def sleeps():
    time.sleep(600)


@pytest.mark.long
def test_a_second_process_that_fails_or_takes_too_long_is_told_and_ended():
    with pytest.raises(RuntimeError, match="(?s)The second process raised Traceback.*LookupError: nothing there"):
        in_second_process(fails, timeout=60)
    with pytest.raises(RuntimeError, match="(?s)The second process raised Traceback.*cannot pickle"):
        in_second_process(returns_what_cannot_be_pickled, timeout=60)
    start = time.monotonic()
    with pytest.raises(TimeoutError, match="`timeout` must suffice for the second process: got 0.5 seconds"):
        in_second_process(sleeps, timeout=0.5)
    assert time.monotonic() - start < 25
    assert not multiprocessing.active_children()


def test_the_checks_need_no_pytest():
    names = pathlib.Path(gdx.testing.__file__).parent.glob("*.py")
    assert not [name for name in names if "import pytest" in name.read_text()]


def token(record):
    return int(record["targets"][0]) or None  # rows of padding fill the last batch


PUBLIC = {
    "big_vision": (public.big_vision, "_id", {"second_run", "second_process", "batch_size", "shard_count", "together"}),
    "big_vision, seeded": (public.big_vision_seeded, "_id", {"shard_count", "together"}),
    "MaxText": (public.maxtext, token, set()),
    "the Dataset tutorial": (public.dataset_tutorial, "_id", set()),
    "the DataLoader tutorial": (public.data_loader_tutorial, "_id", {"shard_count", "together"}),
}


@pytest.mark.parametrize(("make", "key", "wrong"), PUBLIC.values(), ids=PUBLIC)
def test_pipelines_of_public_projects_pass_or_are_told_what_is_wrong(make, key, wrong):
    axes = axes_for(make, *["resume"] * (make is public.big_vision))
    report = report_of(assert_reproducible, make, key=key, records=48, axes=axes, batch_sizes=(4, 2, 8))
    assert {*report.faulty} == wrong & {*axes}


@pytest.mark.long
@pytest.mark.thorough
@pytest.mark.parametrize(("make", "key", "wrong"), PUBLIC.values(), ids=PUBLIC)
def test_no_more_is_told_of_them_over_the_whole_matrix(make, key, wrong):
    report = report_of(assert_reproducible, make, key=key, records=48, batch_sizes=(4, 2, 8))
    assert {*report.faulty} == wrong


def test_hosts_of_public_projects_draw_alike_where_the_data_is_dealt_out_first():
    crop = functools.partial(report_of, assert_hosts_differ, drawn=lambda record: record["drawn"])
    assert crop(public.big_vision_seeded).faulty == ("shards 0, 1",)
    assert crop(public.data_loader_tutorial).faulty == ()


@pytest.mark.long
def test_the_page_on_testing_shows_what_its_code_gives():
    page = (pathlib.Path(__file__).parent.parent / "docs" / "testing.md").read_text()
    names = {"__name__": "page"}
    for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(code, names)
    with pytest.raises(AssertionError) as raised:
        names["test_the_pipeline_is_reproducible"]()
    assert str(raised.value) == re.search(r"```text\n(.*?)\n```", page, re.DOTALL)[1]
    names["test_hosts_draw_for_themselves"]()
    names["test_the_pipeline_goes_on_where_it_stopped"]()
    with pytest.raises(AssertionError, match="a second pass"):
        names["test_epochs_draw_anew"]()
    exec(page.partition("```python\n")[2].partition("```")[0].replace("num_epochs=1", "num_epochs=2"), names)
    names["testing"].assert_epochs_differ(names["make_pipeline"], key="id", drawn="image")
