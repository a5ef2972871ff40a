"""The offline pipeline, from a shop's files to a model bundle: prepare, train, evaluate, export."""

import os

os.environ.setdefault("GLOG_minloglevel", "1")  # otherwise Paddle's log lines break the progress bars
