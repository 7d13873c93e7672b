"""The WSGI application and the gunicorn worker that runs it."""
