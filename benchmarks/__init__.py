"""What the gateway costs: CPU per unit of work, added latency and memory, measured
beside peers in one run.

Nothing here is imported by the gateway and nothing here imports it: it is
started as it is in production.
"""
