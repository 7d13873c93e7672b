"""What is written down: access log, event log, chat log."""
