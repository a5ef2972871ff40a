"""Lay the server out of the `milvus` wheel as the official image has it: /milvus/bin, /milvus/configs."""

import shutil

from milvus import MilvusServerConfig, _initialize_data_files

_initialize_data_files("/milvus")

config = MilvusServerConfig(data_dir="/var/lib/milvus", proxy_port=19530)
# A session outlives its server by 5 s, not 30: a restart is not held up by its predecessor's session.
config.set("common.session.ttl", 5)
# A stop waits 3 s for its parts, not half an hour.
config.set("common.gracefulStopTimeout", 3)
config.resolve()
# Logs go to standard output and error, where `docker logs` finds them.
config.set("etcd_log_path", "stdout")
config.set("system_log_path", "")
config.write_config()
shutil.move("/var/lib/milvus/configs", "/milvus/configs")
