# The server with everything it needs; see docs/deploy.md.
FROM python:3.12-slim-bookworm AS build

WORKDIR /source
COPY . .
# The exact versions that are tested. Torch brings CUDA, which makes the image large.
RUN python -m venv /opt/secondglance \
    && /opt/secondglance/bin/pip install --no-cache-dir --constraint constraints.txt .

FROM python:3.12-slim-bookworm

# OpenCV's libraries. Debian's archive keeps only the newest version of a package.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin secondglance \
    && install -d -o secondglance -g secondglance /library /models

COPY --from=build /opt/secondglance /opt/secondglance

ENV PATH=/opt/secondglance/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    HF_HOME=/models \
    MPLCONFIGDIR=/tmp \
    SECONDGLANCE_LIBRARY=/library

USER 10001
VOLUME ["/library", "/models"]
EXPOSE 7860
# The server lets running requests finish; see --shutdown-s.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:7860/healthz', timeout=4)"]

ENTRYPOINT ["secondglance"]
# Refuses to start without a key; see SECONDGLANCE_API_KEYS and --api-key-file.
CMD ["serve", "--host", "0.0.0.0", "--log-format", "json"]
