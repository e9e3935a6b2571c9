"""Random numbers that depend on the record's seed and on nothing else."""
