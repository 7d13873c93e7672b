"""Bytes that go through without translation, and what is edited in them."""
