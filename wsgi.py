"""What gunicorn runs: `gunicorn -c config/gunicorn.conf.py wsgi:app`."""

from ollama_proxy.serve import serve

app = serve()
