"""The whole application in the process of the test."""
