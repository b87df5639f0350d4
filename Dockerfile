# docker build -t pertstack . && docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/data" -w /data pertstack --help
FROM python:3.12-slim
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src ./src
# on Linux PyTorch brings its CUDA libraries, several gigabytes: '.' instead of '.[models]' leaves the networks out
RUN pip install --no-cache-dir --constraint constraints.txt '.[models]'
# any user may run it: what is compiled or drawn for the first time is kept in a folder that all can write
ENV HOME=/tmp
USER 1000:1000
WORKDIR /data
ENTRYPOINT ["pertstack"]
CMD ["--help"]
