"""From a shop's files to a bundle: prepare, train, evaluate, export."""

import os

os.environ.setdefault("GLOG_minloglevel", "1")  # or Paddle writes into the progress bars
