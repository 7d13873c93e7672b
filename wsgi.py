"""What gunicorn runs: `gunicorn -c config/gunicorn.conf.py wsgi:app`."""

from ollama_proxy.server.startup import serve

app = serve()
