"""`make soak`: many streams for minutes while clients leave, servers restart and the
configuration changes."""
