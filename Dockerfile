# The demo in a container: docker build -t ladder-cli . && docker run --rm -v "$PWD/outputs:/ladder/outputs" ladder-cli
# NOT BUILT YET: no Docker engine was at hand when this was written. What it runs (install, scripts/demo.py) is tested.
FROM python:3.11-slim
WORKDIR /ladder
# The CPU build of torch, which is a tenth of the CUDA build; for GPUs leave the index out and start from a CUDA image.
RUN pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu torch==2.13.0
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY conf conf
COPY ladder_cli ladder_cli
COPY scripts scripts
RUN pip install --no-cache-dir -c constraints.txt .
ENV OMP_NUM_THREADS=2
CMD ["python", "scripts/demo.py"]
