"""What the embedded profile knows of processes."""

import subprocess
import sys
import time
from pathlib import Path

from ecrs.local.processes import start_time

LEADER_GONE = """
import ctypes, threading, time
threading.Thread(target=time.sleep, args=(60,)).start()
print("ready", flush=True)
ctypes.CDLL(None).syscall(60, 0)  # exit(2): this thread alone
"""


def test_a_process_counts_as_alive_until_its_last_thread_is_gone() -> None:
    """A killed process shows as a zombie while its threads still hold its ports."""
    process = subprocess.Popen([sys.executable, "-c", LEADER_GONE], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        deadline = time.monotonic() + 10
        while "Z" not in (state := Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2]):
            assert time.monotonic() < deadline, f"the first thread is still there:{state}"
            time.sleep(0.01)
        assert start_time(process.pid) is not None
    finally:
        process.kill()
        process.communicate(timeout=10)
    assert start_time(process.pid) is None
