"""What a model's server can't read, in a form that it can: images as PNG, and
the text of documents."""
