"""The records: who used what, and what it cost; keys and settings that are managed at run time.

Importing this package must stay cheap: workers do, and they only write the spool. The other modules
are imported one by one by the coordinator and by the commands.
"""

from ollama_proxy.records.spool import SPOOL_DIRECTORY, Spool

__all__ = [
    "SPOOL_DIRECTORY",
    "Spool",
    "audit",
    "backup",
    "check",
    "csv_text",
    "database",
    "foreign_tokens",
    "importer",
    "managed_settings",
    "reports",
    "retention",
    "service",
    "tables",
    "token_import",
    "tokens",
]
