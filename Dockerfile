# docker build -t pertstack . && docker run --rm -v "$PWD:/data" -w /data pertstack --help
FROM python:3.12-slim
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src ./src
RUN pip install --no-cache-dir --constraint constraints.txt '.[models]' && useradd --create-home user
USER user
WORKDIR /data
ENTRYPOINT ["pertstack"]
CMD ["--help"]
