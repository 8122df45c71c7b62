# Build with a model in checkpoints/ (`resnet-service pull` fetches one); run with no network:
#   docker build -t resnet-service . && docker run --rm --network none resnet-service
FROM python:3.11-slim AS build
# CPU-only PyTorch where its index can be reached, the default (5 GB of CUDA) where not.
WORKDIR /build
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
COPY pyproject.toml ./
COPY tools/install_torch.py tools/
RUN python tools/install_torch.py
COPY README.md LICENSE ./
COPY labels labels
COPY src src
RUN pip install --no-cache-dir --disable-pip-version-check '.[torch]'

FROM python:3.11-slim
COPY --from=build /opt/venv /opt/venv
WORKDIR /srv
COPY checkpoints checkpoints
ENV PATH=/opt/venv/bin:$PATH RESNET_SERVICE_HOST=0.0.0.0 PYTHONUNBUFFERED=1
USER 10001
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/health/ready', timeout=2)"]
CMD ["resnet-service", "serve"]
