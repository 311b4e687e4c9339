# Two stages: what builds wheels stays behind; what runs has the locked packages and nothing to build or install with.
FROM python:3.11-slim-bookworm AS wheels
WORKDIR /source
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
COPY requirements-build.lock requirements.lock ./
RUN pip install --require-hashes --requirement requirements-build.lock \
 && pip wheel --require-hashes --no-deps --wheel-dir /wheels --requirement requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY schemas schemas
COPY topology topology
COPY agents agents
COPY docs/runbook.md docs/runbook.md
COPY web web
COPY monitors monitors
COPY cli cli
COPY scripts/page-assets scripts/page-assets
RUN scripts/page-assets python \
 && pip wheel --no-deps --no-build-isolation --wheel-dir /wheels .

FROM python:3.11-slim-bookworm
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# Installed with their bytecode, since nothing is written later: the root file system may be read-only.
RUN --mount=type=bind,from=wheels,source=/wheels,target=/wheels \
    pip install --no-cache-dir --disable-pip-version-check --compile --no-index --no-deps /wheels/*.whl \
 && pip uninstall --yes --disable-pip-version-check setuptools wheel pip
# A named volume takes over the owner of the folder that it is mounted on.
RUN useradd --uid 10001 --create-home eventsink \
 && install -d -m 0700 -o eventsink -g eventsink /data /keys /run/eventsink
# By number, so that an orchestrator can see that it is not root.
USER 10001
WORKDIR /home/eventsink
ENV EVENTSINK_DATA=/data EVENTSINK_KEYS_FILE=/keys/keys.json
EXPOSE 8080
# /healthz says that the process is alive; without the broker it is, and must not be restarted.
HEALTHCHECK --interval=10s --timeout=5s --start-period=40s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/healthz', timeout=4)"]
ENTRYPOINT ["eventsink"]
# Everything in one process, on the embedded default; compose.yaml gives other commands.
CMD ["up", "--host", "0.0.0.0"]
