"""The version of this gateway, said once."""

VERSION = "0.1.0"
