"""A gateway in front of a team's Ollama servers.

client bytes -> blueprint -> schema -> Exchange -> gateway -> upstream ->
events or bytes -> Response.
"""
