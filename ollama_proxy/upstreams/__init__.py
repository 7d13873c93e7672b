"""The servers that run models, each behind the same few methods."""
