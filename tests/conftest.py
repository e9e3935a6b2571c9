import os

# Eight virtual devices for the tests of meshes; set before JAX starts a backend.
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8 " + os.environ.get("XLA_FLAGS", "")

from absl import flags

# Grain reads an absl flag before it starts workers; a program that uses absl.app has parsed its flags by then.
flags.FLAGS.mark_as_parsed()
