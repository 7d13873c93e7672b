# docker build -t ollama-proxy .
# docker run -d -p 8080:8080 -v "$(pwd)/config.yaml:/app/config.yaml" ollama-proxy
FROM python:3.11.14-slim-bookworm

ENV PYTHONUNBUFFERED=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    OLLAMA_PROXY_CONFIG=/app/config.yaml \
    STATE_DIRECTORY=/app/state \
    LOGS_DIRECTORY=/app/logs

WORKDIR /app

COPY requirements.txt ./
RUN pip install --no-cache-dir --require-hashes --only-binary :all: -r requirements.txt

COPY wsgi.py ./
COPY ollama_proxy ./ollama_proxy
COPY config/gunicorn.conf.py ./config/
# What holds while no file is mounted over it.
COPY deploy/docker-config.yaml ./config.yaml

# What /api/version says of the build: docker build --build-arg COMMIT="$(git rev-parse HEAD)" --build-arg DATE="$(date -Iseconds)"
ARG COMMIT= DATE=
RUN [ -z "$COMMIT" ] || printf '{"commit":"%s","date":"%s"}\n' "$COMMIT" "$DATE" > ollama_proxy/build.json

RUN python -m compileall -q wsgi.py ollama_proxy \
 && useradd --system --uid 10001 --user-group --no-create-home --home-dir /app ollama-proxy \
 && install -d -o ollama-proxy -g ollama-proxy -m 0700 state \
 && install -d -o ollama-proxy -g ollama-proxy -m 0750 logs

USER 10001:10001
VOLUME ["/app/state", "/app/logs"]
EXPOSE 8080

# Asks without a proxy, whatever HTTP_PROXY says for the providers.
HEALTHCHECK --interval=15s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.build_opener(r.ProxyHandler({})).open('http://127.0.0.1:' + os.environ.get('PORT', '8080') + '/livez', timeout=4)"]

# gunicorn is process 1: SIGTERM drains the answers in progress (`docker stop -t 330`).
CMD ["gunicorn", "-c", "config/gunicorn.conf.py", "wsgi:app"]
