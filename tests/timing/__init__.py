"""Tests that measure time: one after the other, on a machine that does nothing else."""
