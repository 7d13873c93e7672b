"""The demo upstream: deterministic answers, made in this process."""
