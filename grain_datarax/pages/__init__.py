"""Operators: pure functions of one record, bound to their settings, and applied to whole batches."""
