"""Tests that measure time: they run serially and alone."""
