"""Several upstreams as one: which of them has a model, how it is, and which is next."""
