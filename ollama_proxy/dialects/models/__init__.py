"""The list of models, in the shape that the client expects."""
