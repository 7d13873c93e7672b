"""The WSGI application and the gunicorn worker that runs it.

`wsgi.py` and `config/gunicorn.conf.py` import `startup` and name `worker`. They are not imported
here: the commands use the public names, and must not load Flask and gevent for that.
"""

from ollama_proxy.server.config_warnings import settings_warnings
from ollama_proxy.server.extras import check_tracing

__all__ = ["check_tracing", "settings_warnings"]
