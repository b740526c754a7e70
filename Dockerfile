# RETINA for nnU-Net, with the folders of nnU-Net under /nnunet: docs/install.md, "Docker and conda".
FROM python:3.11-slim

# Of PyTorch's wheels; https://download.pytorch.org/whl/cpu without a GPU. Empty: PyPI's, with CUDA.
ARG TORCH_INDEX=""
ARG EXTRAS="volumes,tensorboard"

# For requirements without a wheel for this machine.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends build-essential \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /src
RUN pip install --no-cache-dir "torch>=2.5" ${TORCH_INDEX:+--index-url "$TORCH_INDEX"}
COPY . .
RUN pip install --no-cache-dir ".[$EXTRAS]"

RUN useradd --create-home --uid 1000 retina && mkdir -p /nnunet/raw /nnunet/preprocessed /nnunet/results && chown -R retina /nnunet
USER 1000
WORKDIR /home/retina
ENV nnUNet_raw=/nnunet/raw \
    nnUNet_preprocessed=/nnunet/preprocessed \
    nnUNet_results=/nnunet/results
VOLUME /nnunet
LABEL org.opencontainers.image.title="RETINA for nnU-Net" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
CMD ["bash"]
