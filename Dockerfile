# One image for web, workers, beat, engine and trainer (docker-compose.yml).
FROM python:3.11-slim-bookworm

# In production mode it refuses to start without its own SECRET_KEY, ALLOWED_HOSTS and EMAIL_URL.
ENV PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    TOKENIZERS_PARALLELISM=false \
    PROSPECT_ENV=production \
    PROSPECT_VAR=/data

RUN useradd --create-home --uid 1000 prospect \
    && install --directory --owner=prospect --group=prospect /data

WORKDIR /app

# Dependencies alone, so that a change of our code does not install them again.
COPY pyproject.toml constraints.txt ./
RUN python -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; print(*project['dependencies'], *project['optional-dependencies']['cpu'], sep='\n')" > /tmp/requirements.txt \
    && pip install --constraint constraints.txt --requirement /tmp/requirements.txt \
    && rm /tmp/requirements.txt

COPY manage.py ./
COPY tools ./tools
COPY static ./static
COPY templates ./templates
COPY trainer ./trainer
COPY feedback_app ./feedback_app
RUN python -m compileall -q feedback_app trainer

USER prospect
VOLUME /data
CMD ["uvicorn", "feedback_app.config.asgi:application", "--host=0.0.0.0", "--port=8000", "--http=feedback_app.config.http_protocol:DeadlineProtocol", "--ws=none", "--no-proxy-headers"]
