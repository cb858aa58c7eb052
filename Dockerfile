# The images of docker-compose.yml and deploy/kubernetes, by --target:
#   web            web, worker-default, beat and migrations; no torch
#   trainer        worker-gpu and the embedded engine, on CPUs
#   trainer-cuda   worker-gpu on NVIDIA GPUs
# tools/image_requirements.py says what each installs. The root file system may be read-only: what
# is written goes to /data and /tmp.
FROM python:3.11-slim-bookworm AS base
# In production mode it refuses to start without its own SECRET_KEY, ALLOWED_HOSTS and EMAIL_URL.
ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PROSPECT_ENV=production \
    PROSPECT_VAR=/data
# tini passes signals on, to the trainer beside its worker too (TINI_KILL_PROCESS_GROUP), and reaps
# zombies; Kubernetes has no counterpart to `docker run --init`. Its version does not matter.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --uid 1000 prospect \
    && install --directory --mode=0700 --owner=prospect --group=prospect /data
WORKDIR /app
ENTRYPOINT ["tini", "--"]
# Dependencies alone, so that a change of our code does not install them again.
COPY pyproject.toml constraints.txt ./
COPY tools/image_requirements.py ./tools/

# Code that every process runs.
FROM base AS code
COPY manage.py ./
COPY tools/health.py ./tools/
COPY static ./static
COPY templates ./templates
COPY feedback_app ./feedback_app
COPY artifact_store ./artifact_store
RUN python -m compileall -q feedback_app artifact_store

FROM base AS web
RUN python tools/image_requirements.py web > /tmp/requirements.txt \
    && pip install --constraint constraints.txt --requirement /tmp/requirements.txt \
    && rm /tmp/requirements.txt
COPY --from=code /app ./
USER 1000:1000
VOLUME /data
CMD ["uvicorn", "feedback_app.config.asgi:application", "--host=0.0.0.0", "--port=8000", "--http=feedback_app.config.http_protocol:DeadlineProtocol", "--ws=none", "--no-proxy-headers"]

FROM base AS trainer-base
# it takes TOKENIZERS for a secret
# hadolint ignore=DL3064
ENV TOKENIZERS_PARALLELISM=false \
    HF_HOME=/data/cache/huggingface

FROM trainer-base AS trainer
# PyPI's torch brings 3 GB of CUDA libraries; this index has the same version without them. What
# torch needs comes from PyPI with everything else: the index has not every pinned version.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN python tools/image_requirements.py trainer > /tmp/requirements.txt \
    && pip install --constraint constraints.txt --no-deps --index-url "$TORCH_INDEX" torch \
    && pip install --constraint constraints.txt --requirement /tmp/requirements.txt \
    && rm /tmp/requirements.txt
COPY --from=code /app ./
COPY trainer ./trainer
RUN python -m compileall -q trainer
USER 1000:1000
VOLUME /data
CMD ["python", "-m", "trainer", "--help"]

FROM trainer-base AS trainer-cuda
RUN python tools/image_requirements.py trainer-cuda > /tmp/requirements.txt \
    && pip install --constraint constraints.txt --requirement /tmp/requirements.txt \
    && rm /tmp/requirements.txt
COPY --from=code /app ./
COPY trainer ./trainer
RUN python -m compileall -q trainer
USER 1000:1000
VOLUME /data
CMD ["python", "-m", "trainer", "--help"]
