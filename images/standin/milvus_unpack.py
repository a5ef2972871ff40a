"""Unpack the server of the `milvus` wheel as in the official image: /milvus/bin, /milvus/configs."""

import shutil

from milvus import MilvusServerConfig, _initialize_data_files

_initialize_data_files("/milvus")

config = MilvusServerConfig(data_dir="/var/lib/milvus", proxy_port=19530)
# A session expires 5 s after its server ends instead of 30, so that a restarted server need not wait for it.
config.set("common.session.ttl", 5)
# On shutdown, wait at most 3 s for the components instead of half an hour.
config.set("common.gracefulStopTimeout", 3)
config.resolve()
# Log to standard output and error, which `docker logs` reads.
config.set("etcd_log_path", "stdout")
config.set("system_log_path", "")
config.write_config()
shutil.move("/var/lib/milvus/configs", "/milvus/configs")
