"""What the embedded profile knows of processes."""

import subprocess
import sys
import time

from ecrs.embedded import _started

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
        time.sleep(0.2)
        assert _started(process.pid) is not None
    finally:
        process.kill()
        process.stdout.close() if process.stdout else None
    process.wait(10)
    assert _started(process.pid) is None
