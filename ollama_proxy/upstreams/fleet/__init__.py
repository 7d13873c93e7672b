"""Several upstreams as one: which of them has a model, which can be used, and which is next."""
