# Two stages: what builds wheels stays behind; what runs has the locked packages and nothing to build with.
FROM python:3.11-slim AS wheels
WORKDIR /source
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
COPY requirements-build.lock requirements.lock ./
RUN pip install --require-hashes --requirement requirements-build.lock \
 && pip wheel --require-hashes --no-deps --wheel-dir /wheels --requirement requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY schemas schemas
COPY topology topology
COPY agents agents
COPY web web
COPY monitors monitors
COPY cli cli
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheels .

FROM python:3.11-slim
ENV PYTHONUNBUFFERED=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN --mount=type=bind,from=wheels,source=/wheels,target=/wheels \
    pip install --no-index --no-deps /wheels/*.whl
# A named volume takes over the owner of the folder that it is mounted on.
RUN useradd --uid 10001 --create-home eventsink && install -d -o eventsink -g eventsink /data /keys
USER eventsink
WORKDIR /home/eventsink
ENV EVENTSINK_DATA=/data EVENTSINK_KEYS_FILE=/keys/keys.json
EXPOSE 8080
# /healthz says that the process is alive; without the broker it is, and must not be restarted.
HEALTHCHECK --interval=10s --timeout=5s --start-period=40s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/healthz', timeout=4)"]
ENTRYPOINT ["eventsink"]
# Everything in one process, on the embedded default; compose.yaml gives other commands.
CMD ["up", "--host", "0.0.0.0"]
