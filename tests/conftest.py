import gc
import os
import zlib

# Eight virtual devices for the tests of meshes; set before JAX starts a backend.
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8 " + os.environ.get("XLA_FLAGS", "")

import hypothesis
import pytest
from absl import flags

# Needs what test_datarax.py is skipped without.
collect_ignore = ["datarax_table.py"]

# Grain reads an absl flag before it starts workers; a program that uses absl.app has parsed its flags by then.
flags.FLAGS.mark_as_parsed()


# `pytest --hypothesis-profile=nightly tests/test_chain_files.py` tries more of them.
hypothesis.settings.register_profile("ci", max_examples=300, derandomize=True, database=None, deadline=None)
hypothesis.settings.register_profile("nightly", max_examples=15_000, database=None, deadline=None)
hypothesis.settings.load_profile("ci")


def pytest_addoption(parser):
    parser.addoption("--thin", type=int, metavar="N", help="run at most N parameter sets of each test")


def pytest_collection_modifyitems(config, items):
    if most := config.getoption("--thin"):
        kept = {id(item) for item in _spread(items, most)}
        config.hook.pytest_deselected(items=[item for item in items if id(item) not in kept])
        items[:] = [item for item in items if id(item) in kept]
    # Long ones first, so that in the end no process is left with one while the others have nothing to do.
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


def _spread(items, most):
    """At most so many of each test's parameter sets, and of long ones half: the same every time, others of each test."""
    tests = {}
    for item in items:
        tests.setdefault((item.nodeid.partition("[")[0], item.get_closest_marker("long") is None), []).append(item)
    for (name, is_short), sets in tests.items():
        count = most if is_short else max(most // 2, 1)
        if len(sets) <= count or sets[0].get_closest_marker("whole"):
            yield from sets
        else:
            first = zlib.crc32(name.encode())
            yield from (sets[(first + place * len(sets) // count) % len(sets)] for place in range(count))


@pytest.fixture(autouse=True)
def _collect_only_what_is_new():
    # JAX keeps millions of objects, and every collection of garbage would go through those of all tests before.
    gc.freeze()
