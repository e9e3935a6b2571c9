"""Checks for a test suite: does a pipeline with random maps, of Grain alone or with ours, repeat where it must?

Each runs the pipeline that a function of yours makes, and raises `AssertionError` with a table of what it tried. They
need no pytest.
"""

from grain_datarax.testing.draws import assert_epochs_differ as assert_epochs_differ
from grain_datarax.testing.draws import assert_hosts_differ as assert_hosts_differ
from grain_datarax.testing.report import Line as Line
from grain_datarax.testing.report import Report as Report
from grain_datarax.testing.reproducibility import assert_reproducible as assert_reproducible
from grain_datarax.testing.resumption import assert_resumable as assert_resumable
