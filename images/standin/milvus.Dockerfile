# Milvus standalone from its PyPI wheel, with the layout, command and environment of the official image:
# /milvus/bin, /milvus/configs, /var/lib/milvus, `milvus run standalone`.
# The wheel's own `milvus-server` is not used, because stopping it leaves the real server running.
ARG BASE
FROM ${BASE} AS unpacked
LABEL ecrs.standin.stage=unpacked
RUN echo 'milvus==2.3.5 --hash=sha256:69515a0630ce29fd10e101fa442afea8ca1387b93a456cd9bd41fdf3deb93d04' >/tmp/milvus.txt \
    && pip install --quiet --no-cache-dir --no-deps --require-hashes -r /tmp/milvus.txt
COPY milvus_unpack.py /tmp/
RUN python /tmp/milvus_unpack.py && rm -f /milvus/bin/*.md5

FROM ${BASE}
RUN groupadd --system --gid 10002 milvus \
    && useradd --system --uid 10002 --gid milvus --home-dir /var/lib/milvus --shell /usr/sbin/nologin milvus \
    && apt-get update -qq \
    && apt-get install -y -qq curl >/dev/null \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin \
    && install -d -o milvus -g milvus /var/lib/milvus
COPY --from=unpacked /milvus /milvus
ENV PATH=/milvus/bin:$PATH LD_LIBRARY_PATH=/milvus/bin DEPLOY_MODE=STANDALONE MILVUS_RUN_DIR=/tmp/milvus GLOG_logtostderr=1
WORKDIR /milvus
VOLUME /var/lib/milvus
USER milvus
EXPOSE 19530 9091
CMD ["milvus", "run", "standalone"]
