"""States, chains and checkpoints that were damaged: refused in words and without a trace, or taken as a whole.

`pytest --hypothesis-profile=nightly tests/test_fuzz.py` tries 112 500 of them.
"""

import functools
import itertools
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import grain
import jax
import numpy as np
import pytest
import yaml
from damage import as_json, damaged, damaged_text
from helpers import noise, patch_dropout
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from refusals import REFUSALS, require_refusal

import grain_datarax as gdx
from grain_datarax import checkpoint

pytestmark = pytest.mark.once

COUNT, BATCH = 24, 4
READ_OPTIONS = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
PARTS = [gdx.PatchDropout(num_patches=(0, 2), patch_size=(1, 1)), gdx.Sequential([gdx.UniformNoise()], name="held")]
CHAIN = gdx.Chain([gdx.OneOf(PARTS, p=0.9)], seed=5, axes="HW")
KEPT = {
    path.stem: json.loads(path.read_text()) for path in (pathlib.Path(__file__).parent / "golden/chains_1").iterdir()
}
everything_allowed = settings(suppress_health_check=list(HealthCheck), max_examples=settings.default.max_examples // 2)


class Source:
    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        return {"image": np.full((2, 2), index, np.uint8), "label": index}

    def __repr__(self):
        return "Source()"


def loader(workers=0):
    sampler = grain.samplers.IndexSampler(COUNT, shuffle=True, num_epochs=1, seed=3)
    operations = [gdx.SeedRecords(), grain.transforms.Batch(BATCH, drop_remainder=True)]
    return grain.DataLoader(
        data_source=Source(), sampler=sampler, operations=operations, worker_count=workers, read_options=READ_OPTIONS
    )


def dataset():
    return grain.MapDataset.source(Source()).shuffle(seed=1).random_map(gdx.SeedRecords(), seed=7)


def worker_dataset():
    options = grain.MultiprocessingOptions(num_workers=2)
    return dataset().batch(BATCH, drop_remainder=True).to_iter_dataset(READ_OPTIONS).mp_prefetch(options)


def mixture():
    odd, even = (dataset()[start::2].to_iter_dataset(READ_OPTIONS) for start in range(2))
    mixed = grain.IterDataset.mix([odd.filter(lambda record: record["label"] != 3), even])
    return mixed.batch(BATCH, drop_remainder=True)


def interleaved():
    parts = [dataset()[start::3].to_iter_dataset(READ_OPTIONS).batch(BATCH, drop_remainder=True) for start in range(3)]
    return grain.experimental.InterleaveIterDataset(parts, cycle_length=2)


def elastic():
    whole = grain.sharding.NoSharding()
    return grain.experimental.ElasticIterator(dataset(), BATCH, whole, read_options=READ_OPTIONS)


SOURCES = {
    "loader": loader,
    "loader, 2 workers": lambda: loader(2),
    "MapDataset": lambda: dataset().batch(BATCH, drop_remainder=True),
    "IterDataset": lambda: dataset().to_iter_dataset(READ_OPTIONS).batch(BATCH, drop_remainder=True),
    "IterDataset, 2 workers": worker_dataset,
    "mixture": mixture,
    "interleaved": interleaved,
    "ElasticIterator": elastic,
}


def iterator_of(name):
    operators = [patch_dropout(patch_size=(1, 1), num_patches=1), noise()] if name == "MapDataset" else CHAIN
    one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return iter(gdx.DeviceLoader(SOURCES[name](), operators, buffer_size=0, sharding=one))


@functools.cache
def journey_of(name):
    """An iterator, its states after each batch, and the records in these; at the start alone where there are workers."""
    iterator = iterator_of(name)
    states, batches = [iterator.get_state()], []
    for batch in () if "workers" in name else iterator:
        states.append(iterator.get_state())
        batches.append(records_of(batch))
    return iterator, states, batches


def records_of(batch):
    return dict(zip(np.asarray(batch["label"]).tolist(), map(bytes, np.asarray(batch["image"])), strict=True))


@st.composite
def steps_and_states(draw, name, as_text=False):
    """A step, and a damaged state of it."""
    states = journey_of(name)[1]
    step = draw(st.integers(0, max(len(states) - 2, 0)))
    state = states[step]
    if isinstance(state, bytes) or as_text:
        tree = json.loads(state) if isinstance(state, bytes) else state
        return step, draw(damaged_text(tree, as_json))
    return step, draw(damaged(state, others=True))


def require_whole(name, step, use):
    """Fails unless an iterator at this step refuses what `use` gives it, and stays where it was, or goes on from it."""
    iterator, states, batches = journey_of(name)
    if "workers" in name:
        # A new one each time: where many states are set before its workers start, Grain 0.2.18 may wait for ever.
        with iterator_of(name) as iterator:
            require_refused_or_taken(iterator, states[step], use)
        return
    iterator.set_state(states[step])
    if require_refused_or_taken(iterator, states[step], use):
        everything = {label: pixels for batch in batches for label, pixels in batch.items()}
        for batch in itertools.islice(iterator, COUNT):
            assert records_of(batch).items() <= everything.items()
    else:
        assert records_of(next(iterator)) == batches[step]


def require_refused_or_taken(iterator, before, use):
    """Whether it is taken; else fails unless it is refused in words and leaves the state as it was."""
    try:
        use(iterator)
    except REFUSALS as error:
        require_refusal(error)
        assert iterator.get_state() == before
        return False
    iterator.set_state(iterator.get_state())
    return True


# Grain's iterators wait for their threads when they are collected, also where such a thread collects them:
# google/grain#1373.
@pytest.mark.filterwarnings("ignore:.*DatasetIterator.__del__:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", SOURCES)
def test_a_damaged_state_is_refused_without_a_trace_or_taken(name):
    @everything_allowed
    @given(steps_and_states(name))
    def check(case):
        step, state = case
        require_whole(name, step, lambda iterator: iterator.set_state(state))

    check()


@pytest.mark.parametrize("name", ["loader", "MapDataset", "mixture", "ElasticIterator"])
def test_a_damaged_checkpoint_is_refused_without_a_trace_or_taken(name, tmp_path):
    others = [
        "process_1-of-1.json",
        "process_0-of-2.json",
        "process_0-of-٢.json",
        "process_00-of-01.json",
        "other.json",
    ]

    @everything_allowed
    @given(steps_and_states(name, as_text=True), st.sampled_from([None] * 9 + others))
    def check(case, other):
        step, state = case
        folder = pathlib.Path(tempfile.mkdtemp(dir=tmp_path))
        for file in {"process_0-of-1.json", other} - {None}:
            (folder / file).write_bytes(state)
        require_whole(name, step, lambda iterator: checkpoint.restore(folder, iterator))
        shutil.rmtree(folder)

    check()


def require_chain(read):
    """Fails unless a chain is refused, or is a value like any other."""
    try:
        chain = read()
    except REFUSALS as error:
        require_refusal(error)
        return
    text = json.dumps(chain.to_dict(), allow_nan=False)
    functions = [link.function for link in chain.links if isinstance(link, gdx.Function)]
    again = gdx.Chain.from_dict(json.loads(text), functions=functions)
    assert (again, hash(again), repr(again)) == (chain, hash(chain), repr(chain))
    assert json.dumps(again.to_dict()) == text


@everything_allowed
@given(st.sampled_from(list(KEPT.values())).flatmap(lambda chain: damaged(chain, others=True)))
def test_a_damaged_chain_is_refused_or_another_chain(description):
    require_chain(lambda: gdx.Chain.from_dict(description, functions=["numpy:add"]))


def as_yaml(tree):
    try:
        return yaml.safe_dump(tree, sort_keys=False, default_flow_style=None).encode(errors="surrogatepass")
    except RecursionError:  # which PyYAML needs more of than Python has
        return as_json(tree)


@pytest.mark.parametrize(("suffix", "text"), [("json", as_json), ("yaml", as_yaml)])
def test_a_damaged_file_of_a_chain_is_refused_or_another_chain(suffix, text, tmp_path):
    file = tmp_path / f"chain.{suffix}"

    @everything_allowed
    @given(
        st.sampled_from([KEPT[name] for name in ("moved", "cast", "all")]).flatmap(
            lambda chain: damaged_text(chain, text)
        )
    )
    def check(data):
        file.write_bytes(data)
        require_chain(lambda: gdx.Chain.load(file, functions=["numpy:add"]))

    check()


# In a process of its own, as an audit hook stays. What is read once before has made its imports.
AUDITED = """
import json, pathlib, sys
import grain, numpy as np
import grain_datarax as gdx
from grain_datarax import checkpoint

folder = pathlib.Path(sys.argv[1])
sys.path.insert(0, str(folder))
chain = gdx.Chain([gdx.GaussianNoise(), gdx.Function("numpy:add")], seed=0)
records = grain.MapDataset.source([{"image": np.zeros((2, 2, 1)), "record_seed": np.zeros(2, np.uint32)}] * 8)
iterator = iter(gdx.DeviceLoader(records.batch(4), chain, buffer_size=0))
seen = []


def refused(read):
    try:
        read()
    except ValueError as error:
        return str(error)
    raise AssertionError("was taken")


def read_all(name):
    text = json.dumps(chain.to_dict()).replace("numpy:add", name)
    for path, content in [("chain.json", text), ("chain.yaml", text), ("bad.yaml", "!!python/object/apply:evil.f []")]:
        (folder / path).write_text(content)
        seen.clear()
        refused(lambda: gdx.Chain.load(folder / path))
        assert seen == [("open", str(folder / path))], seen
    hostile = json.dumps(iterator.get_state()).replace("GaussianNoise", str(folder / "secret"))
    (folder / "process_0-of-1.json").write_text(hostile)
    seen.clear()
    refused(lambda: iterator.set_state(json.loads(hostile)))
    assert seen == [], seen
    refused(lambda: checkpoint.restore(folder, iterator))
    opened = {path for event, path in seen if event == "open"}
    assert opened <= {str(folder / "process_0-of-1.json")} and len(seen) == len(opened) == 1, seen


class Hook:
    on = False

    def __call__(self, event, args):
        if self.on and event in ("open", "import", "exec", "compile", "os.system", "subprocess.Popen", "pickle.find_class"):
            seen.append((event, str(args[0])))


hook = Hook()
sys.addaudithook(hook)
try:
    read_all("evil:function")
except AssertionError:
    pass
hook.on = True
read_all("evil:function")
assert "evil" not in sys.modules
print("read")
"""


def test_what_is_read_is_data_and_opens_and_imports_nothing(tmp_path):
    (tmp_path / "evil.py").write_text("raise AssertionError('imported')")
    command = [sys.executable, "-c", AUDITED, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "read\n"), done.stderr
