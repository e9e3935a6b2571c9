import gc
import os

# Eight virtual devices for the tests of meshes; set before JAX starts a backend.
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8 " + os.environ.get("XLA_FLAGS", "")

import hypothesis
import pytest
from absl import flags

# Needs what test_datarax.py is skipped without.
collect_ignore = ["datarax_table.py"]

# Grain reads an absl flag before it starts workers; a program that uses absl.app has parsed its flags by then.
flags.FLAGS.mark_as_parsed()


# `pytest --hypothesis-profile=thorough tests/test_chain_files.py` tries more of them.
hypothesis.settings.register_profile("suite", max_examples=300, derandomize=True, database=None, deadline=None)
hypothesis.settings.register_profile("thorough", max_examples=10_000, database=None, deadline=None)
hypothesis.settings.load_profile("suite")


def pytest_collection_modifyitems(items):
    # Long ones first, so that in the end no process is left with one while the others have nothing to do.
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture(autouse=True)
def _collect_only_what_is_new():
    # JAX keeps millions of objects, and every collection of garbage would go through those of all tests before.
    gc.freeze()
