"""Runs the store suites again, over the stack's Redis, Milvus and Paddle Serving."""

import os
import subprocess
import sys
from pathlib import Path

from tests.compose.conftest import ROOT, Stack


def test_store_suites_pass_over_the_real_servers(stack: Stack, bundle_dir: Path) -> None:
    environment = os.environ | {
        "ECRS_TEST_REDIS_URL": f"redis://admin@{stack.address('redis')}:6379/0",
        "ECRS_TEST_REDIS_PASSWORD": stack.secret("redis_admin_password"),
        "ECRS_TEST_MILVUS": f"milvus://{stack.address('milvus')}:19530",
        "ECRS_TEST_MILVUS_PASSWORD": stack.secret("milvus_password"),
        "ECRS_TEST_USER_TOWER": f"serving://{stack.address('serving-user-tower')}:9998",
        "ECRS_TEST_ITEM_TOWER": f"serving://{stack.address('serving-item-tower')}:9998",
        "ECRS_TEST_RANKER": f"serving://{stack.address('serving-ranker')}:9998",
        "ECRS_TEST_BUNDLE": str(bundle_dir),
        "ECRS_TRUSTED_BUNDLE_KEYS": str(bundle_dir.parent / "trusted_bundle_keys"),
    }
    command = [sys.executable, "-m", "pytest", "-vv", "--no-header", "tests/store"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, text=True, capture_output=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    passed = "\n".join(line for line in done.stdout.splitlines() if "PASSED" in line)
    servers = ("redis_server", "ECRS_TEST_MILVUS")
    models = ("ECRS_TEST_USER_TOWER", "ECRS_TEST_ITEM_TOWER", "ECRS_TEST_RANKER")
    for server in (*servers, *models):
        assert server in passed, f"no test passed over {server}:\n{done.stdout}"
