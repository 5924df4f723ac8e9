# The page in a container, as a user without rights; weights that are fetched stay in a volume.
#   docker build --target cpu  -t dloral:cpu  .    any machine, about 3 GB
#   docker build --target cuda -t dloral:cuda .    NVIDIA's container toolkit, about 8 GB
#   docker run --rm -p 7860:7860 -v dloral-weights:/weights dloral:cpu
# The health check wants the full model fetched beforehand and the port changed by -e PORT:
# docs/deployment.md.
FROM debian:trixie-slim AS base
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    HF_HOME=/weights \
    GRADIO_SERVER_NAME=0.0.0.0 \
    PORT=7860
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv ca-certificates \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --uid 1000 dloral \
    && mkdir /app /weights /opt/venv \
    && chown dloral /app /weights /opt/venv
USER dloral
RUN python3 -m venv /opt/venv
WORKDIR /app
COPY --chown=dloral requirements.txt .
VOLUME /weights
EXPOSE 7860
HEALTHCHECK --start-period=60s --interval=30s --timeout=5s \
    CMD ["python", "-c", "import os, urllib.request as web; web.urlopen('http://127.0.0.1:' + os.environ['PORT'], timeout=4)"]
CMD ["python", "app.py"]

FROM base AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
RUN pip install -r requirements.txt
COPY --chown=dloral . .

# Last, so that it is what `docker build .` makes.
FROM base AS cpu
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --extra-index-url $TORCH_INDEX -r requirements.txt
COPY --chown=dloral . .
