# The service with a model inside. It needs no network, no capabilities and no writable file system:
#   docker build -t resnet-service .                                    or: make image
#   docker run --rm --network none --read-only --cap-drop ALL resnet-service
#
# To build in your own exported model:
#   --build-arg MODEL=checkpoints/pets-int8.onnx --build-arg MODEL_VERSION=(the first 12 digits of its SHA-256)
# To mount it instead, where it takes precedence over the model in the image:
#   docker run -v "$PWD/checkpoints/pets-int8.onnx:/srv/checkpoints/pets-int8.onnx:ro" …

# To read HEIC, by a library under GPL and with software patents (docs/decisions/0037-heic.md):
#   --build-arg REQUIREMENTS=requirements/serve-heic.txt

# The label values are arguments, since a Dockerfile cannot read files; deploy/image/check.py verifies them.
ARG MODEL=checkpoints/resnet18-fashion-mnist-int8.onnx
ARG MODEL_VERSION=ccd89f92397b
ARG VERSION=1.2.0
ARG REQUIREMENTS=requirements/serve.txt

# Layers that change rarely come first: the locked dependencies, then the package, then the model.
FROM python:3.11-slim-bookworm AS dependencies
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
ARG REQUIREMENTS
COPY requirements/build.txt requirements/serve.txt requirements/serve-heic.txt requirements/
RUN python -m venv /opt/build && /opt/build/bin/pip install --require-hashes -r requirements/build.txt
# Wheels only, so the build needs no compiler. The environment has no pip either.
RUN python -m venv --without-pip /opt/venv \
 && /opt/build/bin/pip --python /opt/venv/bin/python install --no-compile --only-binary :all: --require-hashes \
    -r ${REQUIREMENTS}
COPY deploy/image/trim.py deploy/image/
# Compile bytecode here, since the service cannot write any. It is never checked against the source, which cannot change.
RUN /opt/venv/bin/python deploy/image/trim.py /opt/venv/lib/python3*/site-packages \
 && /opt/venv/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/venv/lib

FROM dependencies AS package
COPY pyproject.toml README.md LICENSE ./
COPY labels labels
COPY src src
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
 && /opt/build/bin/pip --python /opt/venv/bin/python install --no-compile --no-deps --root /package /wheels/*.whl \
 && /opt/venv/bin/python -m compileall -q --invalidation-mode unchecked-hash -s /package /package
ARG MODEL
COPY ${MODEL} /srv/checkpoints/
ARG VERSION
ARG MODEL_VERSION
COPY deploy/image/check.py deploy/image/
# The build ends here if a label has the wrong version, or if the model cannot be served.
RUN cp -a /package/. / && /opt/venv/bin/python deploy/image/check.py "$VERSION" "$MODEL_VERSION" /srv/checkpoints/*

# Remove what the service does not need from the base: pip, package lists, documentation, setuid bits. The final image
# copies from this stage instead of building on it, so that no lower layer contains the removed files. dpkg's records and
# the licences stay.
FROM python:3.11-slim-bookworm AS base
RUN set -eu; stdlib=$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))'); \
    for part in ensurepip idlelib test tkinter turtledemo; do rm -rf "$stdlib/$part"; done; \
    rm -rf /usr/lib/python3/dist-packages/* /usr/local/lib/python3.*/*-packages/* /usr/share/python-wheels \
        /usr/bin/pip* /usr/local/bin/pip* /root/.cache /var/lib/apt/lists/* /var/cache/* /var/log/* \
        /usr/share/man /usr/share/info /usr/share/locale; \
    find /usr/share/doc -type f ! -name copyright -delete; \
    find / -xdev -type f -perm /6000 -exec chmod a-s {} +; \
    # Python's image has no bytecode of the standard library; without write access, every start would compile it again.
    python -m compileall -q -j 0 --invalidation-mode unchecked-hash -f "$stdlib"

FROM scratch
COPY --from=base / /
COPY --from=dependencies /opt/venv /opt/venv
COPY --from=package /package/ /
WORKDIR /srv
ARG MODEL
COPY ${MODEL} checkpoints/
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8 \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 RESNET_SERVICE_HOST=0.0.0.0
USER 10001:10001
EXPOSE 8080
ARG VERSION
ARG MODEL_VERSION
ARG REVISION=unknown
LABEL org.opencontainers.image.title="resnet-service" \
      org.opencontainers.image.description="Serves an image classifier (ResNet-18 and its kin) from one validated file, offline." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="docker.io/library/python:3.11-slim-bookworm" \
      resnet-service.model.file="${MODEL}" \
      resnet-service.model.version="${MODEL_VERSION}"
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s --retries=3 \
    CMD ["python", "-m", "resnet_service.server.healthcheck"]
ENTRYPOINT ["resnet-service"]
CMD ["serve"]
