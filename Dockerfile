# The demo of a model on the CPU. From the repository's root:
#   docker build -t bcnet .
#   docker run --rm -p 127.0.0.1:7860:7860 -v "$PWD/output/quick:/weights:ro" bcnet
# docs/demo.md says more.
FROM python:3.12-slim-bookworm

ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

# torch first, in a layer of its own: it changes less often than the code, and PyPI has no CPU build of it for Linux.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install torch torchvision --index-url "$TORCH_INDEX"

WORKDIR /src
COPY pyproject.toml setup.py README.md LICENSE ./
COPY bcnet ./bcnet
COPY configs ./configs
RUN pip install ".[demo,hub,backbones]"

# Nobody needs root to look at pictures. The home folder takes downloads (hf://), configs and matplotlib's cache.
RUN useradd --create-home --uid 1000 demo
USER demo
WORKDIR /home/demo
# Everything that the installation needs can be imported.
RUN bcnet info && python -c "import bcnet.demo.page"
VOLUME /weights
EXPOSE 7860

# Inside the container all addresses are the container's own: -p says who reaches the page.
ENTRYPOINT ["bcnet", "demo", "--host", "0.0.0.0", "--port", "7860"]
CMD ["--weights", "/weights/model_final.pth"]
