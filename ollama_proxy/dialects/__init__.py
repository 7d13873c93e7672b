"""The dialects that clients speak, one directory each."""
