"""The fault table: one test for each row, through nginx and straight at the gateway,
under six common rules."""
