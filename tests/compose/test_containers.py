"""The privileges and published ports of each container, and the passwords of the stores."""

import grpc
import pymilvus
import pytest
import redis

from tests.compose.conftest import ONE_SHOTS, PROJECT, SERVICES, Stack


@pytest.mark.parametrize("service", [*SERVICES, *ONE_SHOTS])
def test_a_container_has_no_privileges(stack: Stack, service: str) -> None:
    container = stack.inspect(service)
    host = container["HostConfig"]
    assert container["Config"]["User"].split(":")[0] not in {"", "0", "root"}
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert "no-new-privileges:true" in host["SecurityOpt"]
    assert host["Memory"] > 0
    assert host["Init"]


@pytest.mark.parametrize("service", [*SERVICES, *ONE_SHOTS])
def test_only_the_gateway_is_published_and_only_on_loopback(stack: Stack, service: str) -> None:
    container = stack.inspect(service)
    networks = set(container["NetworkSettings"]["Networks"])
    published = {port: hosts for port, hosts in container["NetworkSettings"]["Ports"].items() if hosts}
    if service == "gateway":
        host, port = stack.gateway.split(":")
        assert published == {"8930/tcp": [{"HostIp": host, "HostPort": port}]}
        assert networks == {f"{PROJECT}_internal", f"{PROJECT}_edge"}
    else:
        assert published == {}
        assert networks == {f"{PROJECT}_internal"}


@pytest.mark.parametrize("service", [*SERVICES, *ONE_SHOTS])
def test_no_password_is_in_the_arguments_or_the_environment(stack: Stack, service: str) -> None:
    visible = str(stack.inspect(service)["Config"]) + stack.compose("top", service)
    for name in ("redis_password", "milvus_password"):
        assert stack.secret(name) not in visible


def test_redis_requires_the_password(stack: Stack) -> None:
    with pytest.raises(redis.AuthenticationError):
        redis.Redis(stack.address("redis"), socket_timeout=5).ping()
    assert redis.Redis(
        stack.address("redis"), password=stack.secret("redis_password"), socket_timeout=5
    ).ping()


@pytest.mark.parametrize("token", ["", "root:Milvus", "root:wrong"])
def test_milvus_refuses_a_client_without_the_password(stack: Stack, token: str) -> None:
    with pytest.raises((pymilvus.MilvusException, grpc.RpcError)):
        _collections(stack, token)


def test_milvus_accepts_the_password(stack: Stack) -> None:
    assert _collections(stack, "root:" + stack.secret("milvus_password"))


def _collections(stack: Stack, token: str) -> list[str]:
    client = pymilvus.MilvusClient(f"http://{stack.address('milvus')}:19530", token=token, timeout=5)
    try:
        return client.list_collections()
    finally:
        client.close()
