"""The compose and embedded profiles give the same answers for the same bundle."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from ecrs.contract.as_pb2 import ASRequest, ASResponse
from ecrs.contract.as_pb2_grpc import ASServiceStub
from ecrs.contract.user_info_pb2 import UserInfo
from ecrs.domain.sizes import CANDIDATES
from tests.compose.conftest import Stack, wait_until

EMBEDDED = "127.0.0.1:8930"
FULL_LIMIT_S = 120.0
"""Longest wait for a full answer; a gateway that was slow on a busy machine needs time to rank all candidates
again."""
FIELDS = ("age", "sex", "city_level", "province", "city", "country")
USERS = 20


@pytest.fixture(scope="module")
def embedded(bundle_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run `ecrs up` on this host, on the default ports; the stack's gateway is published on another port."""
    run_dir = tmp_path_factory.mktemp("embedded")
    log = run_dir / "up.log"
    with log.open("w") as output:
        command = [str(Path(sys.executable).with_name("ecrs")), "up", str(bundle_dir)]
        trust = {"ECRS_TRUSTED_BUNDLE_KEYS": str(bundle_dir.parent / "trusted_bundle_keys")}
        process = subprocess.Popen(
            command, cwd=run_dir, env=os.environ | trust, stdout=output, stderr=subprocess.STDOUT
        )

    def is_up() -> bool:
        if process.poll() is not None:
            pytest.fail(f"ecrs up ended with {process.returncode}:\n{log.read_text()}")
        return "up: bundle" in log.read_text()

    try:
        wait_until("ecrs up", is_up, limit_s=120)
        yield EMBEDDED
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def ask(target: str, request: ASRequest) -> ASResponse:
    with grpc.insecure_channel(target) as channel:
        return ASServiceStub(channel).as_call(request, timeout=10, wait_for_ready=True)


def ask_for_full(target: str, request: ASRequest) -> ASResponse:
    """Return an answer with every candidate ranked and no fallback used."""

    def full() -> ASResponse | None:
        answer = ask(target, request)
        return None if answer.degraded or 0 < answer.ranked < CANDIDATES else answer

    return wait_until(f"a full answer of {target}", full, FULL_LIMIT_S)


def requests_by_id_and_profile(bundle_dir: Path) -> list[ASRequest]:
    """Return a request per user by id, then a request per user as a new user with the same profile."""
    lines = (bundle_dir / "users.dat").read_text().splitlines()
    people: list[Any] = [line.split(":") for line in lines[:: len(lines) // USERS][:USERS]]
    users = [ASRequest(user_id=user, request_num=CANDIDATES) for user, *_ in people]
    profiles = [UserInfo(**dict(zip(FIELDS, profile, strict=True))) for _, *profile in people]
    return users + [ASRequest(user_info=profile, request_num=CANDIDATES) for profile in profiles]


def test_compose_and_embedded_give_the_same_scores(stack: Stack, embedded: str, bundle_dir: Path) -> None:
    for request in requests_by_id_and_profile(bundle_dir):
        answers = [ask_for_full(target, request) for target in (stack.gateway, embedded)]
        assert [answer.error.code for answer in answers] == [200, 200], request
        assert {answer.bundle_version for answer in answers} == {bundle_dir.name}
        in_compose, in_embedded = (
            {item.sku_id: item.rank_score for item in answer.item_infos} for answer in answers
        )
        assert len(in_compose) == CANDIDATES
        assert in_compose == pytest.approx(in_embedded, abs=1e-4)


def test_the_answer_contains_the_outcome_of_each_stage(stack: Stack, bundle_dir: Path) -> None:
    requests = requests_by_id_and_profile(bundle_dir)
    old_user, new_user = requests[0], requests[USERS]
    stages = {"user": "ok", "recall": "ok", "item": "ok", "rank": "ok"}
    assert outcomes(ask(stack.gateway, old_user)) == stages
    assert outcomes(ask(stack.gateway, new_user)) == stages | {"user": "skipped"}


def outcomes(answer: ASResponse) -> dict[str, str]:
    return {stage.name: stage.outcome for stage in answer.stages}
