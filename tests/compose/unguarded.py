"""server.py with the stock parsing of requests in place of the guard; runs in the serving image."""

import sys

import server
from paddle_serving_server.pipeline import RequestOp

server.Guard.unpack_request_package = RequestOp.unpack_request_package

if __name__ == "__main__":
    sys.exit(server.main())
