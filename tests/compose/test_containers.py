"""The privileges, limits and networks of each container, and what each user of the stores may do."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pymilvus
import pytest
import redis
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError
from redis.retry import Retry

from ecrs.ports import METRICS_OFFSET, PORTS
from ecrs.storage.milvus_vectors import ALIAS
from tests.compose.conftest import ONE_SHOTS, PROJECT, SERVICES, Stack, run

SERVERS = {
    "redis": [6379],
    "milvus": [19530, 9091],
    **{f"serving-{model}": [9998] for model in ("user-tower", "item-tower", "ranker")},
    **{service: [port, port + METRICS_OFFSET] for service, port in PORTS.items()},
}
"""The ports of each server."""
CALLS = {
    "redis": set(),
    "milvus": set(),
    "serving-user-tower": set(),
    "serving-item-tower": set(),
    "serving-ranker": set(),
    "um": {"redis"},
    "cm": {"redis", "serving-item-tower", "recall"},
    "recall": {"milvus", "serving-user-tower"},
    "rank": {"serving-ranker"},
    "gateway": {"um", "cm", "recall", "rank", "redis"},
    "client": {"um", "cm", "recall", "rank", "gateway"},
}
"""The servers that each running container calls."""
ONE_SHOT_NETWORKS = {
    "train": {"none"},
    "seed-redis": {"redis"},
    "milvus-users": {"milvus"},
    "seed-milvus": {"milvus", "redis", "serving-item-tower"},
}
REACH = Path(__file__).with_name("reach.py")
SECRETS = (
    *("redis_admin", "redis_um", "redis_cm", "redis_gateway", "redis_seed_redis", "redis_seed_milvus"),
    *("milvus", "milvus_recall", "milvus_seed"),
)
"""The users of the stores."""


@pytest.mark.parametrize("service", [*SERVICES, *ONE_SHOTS])
def test_a_container_has_no_privileges(stack: Stack, service: str) -> None:
    container = stack.inspect(service)
    host = container["HostConfig"]
    assert container["Config"]["User"].split(":")[0] not in {"", "0", "root"}
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert "no-new-privileges:true" in host["SecurityOpt"]
    assert host["Init"]


@pytest.mark.parametrize("service", [*SERVICES, *ONE_SHOTS])
def test_a_container_has_limits(stack: Stack, service: str) -> None:
    host = stack.inspect(service)["HostConfig"]
    assert host["Memory"] > 0
    assert 0 < host["PidsLimit"] <= 2048
    assert 0 < host["NanoCpus"] <= 2_000_000_000
    assert {"noexec", "nosuid", "nodev"} < set(host["Tmpfs"]["/tmp"].split(","))  # noqa: S108
    assert "size=" in host["Tmpfs"]["/tmp"]  # noqa: S108


def networks(stack: Stack, service: str) -> dict[str, Any]:
    return stack.inspect(service)["NetworkSettings"]["Networks"]


@pytest.fixture(scope="module")
def targets(stack: Stack) -> dict[str, tuple[str, int]]:
    """Each port of each server on each of its networks: `address:port`, and the server and the port."""
    return {
        f"{network['IPAddress']}:{port}": (server, port)
        for server, ports in SERVERS.items()
        for network in networks(stack, server).values()
        for port in ports
    }


@pytest.mark.parametrize("service", SERVICES)
def test_a_container_reaches_the_servers_that_it_calls_and_no_other(
    service: str, targets: dict[str, tuple[str, int]]
) -> None:
    others = [target for target, (server, _) in targets.items() if server != service]
    accepted = run(*in_network_of(service), "python", "-c", REACH.read_text(), *others).split()
    expected = [(server, port) for server in CALLS[service] for port in SERVERS[server]]
    assert sorted(targets[target] for target in accepted) == sorted(expected)


def in_network_of(service: str) -> list[str]:
    """Return the beginning of a command that runs in the network of a container."""
    return ["docker", "run", "--rm", "--network", f"container:{PROJECT}-{service}-1", "ecrs/app"]


@pytest.mark.parametrize("service", ONE_SHOTS)
def test_a_one_shot_is_on_the_networks_of_the_servers_that_it_calls(stack: Stack, service: str) -> None:
    prefix = f"{PROJECT}_"
    found = {name.removeprefix(prefix) for name in networks(stack, service)}
    assert found == ONE_SHOT_NETWORKS[service]


@pytest.mark.parametrize("service", [*SERVICES, *ONE_SHOTS])
def test_only_the_gateway_is_published_and_only_on_loopback(stack: Stack, service: str) -> None:
    ports = stack.inspect(service)["NetworkSettings"]["Ports"]
    published = {port: hosts for port, hosts in ports.items() if hosts}
    if service == "gateway":
        host, port = stack.gateway.split(":")
        assert published == {"8930/tcp": [{"HostIp": host, "HostPort": port}]}
    else:
        assert published == {}


def test_no_network_can_be_left(stack: Stack) -> None:
    names = run(
        "docker", "network", "ls", "--quiet", "--filter", f"label=com.docker.compose.project={PROJECT}"
    )
    for network in json.loads(run("docker", "network", "inspect", *names.split())):
        translates = network["Options"].get("com.docker.network.bridge.enable_ip_masquerade")
        assert network["Internal"] or translates == "false", network["Name"]


@pytest.mark.parametrize("service", ["gateway", "client"])
def test_the_gateways_network_has_no_way_out(stack: Stack, service: str) -> None:
    outside = f"{next_hop()}:53"
    probe = ["python", "-c", ANSWERED, outside]
    ordinary = ["docker", "run", "--rm", "--network", "bridge", "ecrs/app", *probe]
    assert run(*ordinary).strip() == "answered", "this host's next hop must answer, or the test shows nothing"
    assert run(*in_network_of(service), *probe).strip() == "no answer"


ANSWERED = """
import socket, sys
host, _, port = sys.argv[1].rpartition(":")
try:
    socket.create_connection((host, int(port)), timeout=2)
    print("answered")
except ConnectionRefusedError:
    print("answered")
except OSError:
    print("no answer")
"""
"""Prints whether a host answers, be it by refusing the connection."""


def next_hop() -> str:
    """Return the address of this host's default gateway."""
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        _, destination, gateway, *_ = line.split()
        if destination == "00000000":
            return ".".join(str(byte) for byte in reversed(bytes.fromhex(gateway)))
    raise AssertionError("no default route")


@pytest.mark.parametrize("service", [*SERVICES, *ONE_SHOTS])
def test_no_password_is_in_the_arguments_or_the_environment(stack: Stack, service: str) -> None:
    visible = str(stack.inspect(service)["Config"]) + stack.compose("top", service)
    for name in (*(f"{user}_password" for user in SECRETS), "write_token"):
        assert stack.secret(name) not in visible


SignIn = Callable[..., redis.Redis]


@pytest.fixture(scope="module")
def redis_as(stack: Stack) -> SignIn:
    """Return a function that signs in to Redis as a user, with its password or another one."""
    address = stack.address("redis")

    def sign_in(user: str, password: str | None = None) -> redis.Redis:
        password = stack.secret(f"redis_{user}_password") if password is None else password
        return redis.Redis(
            address, username=user, password=password, socket_timeout=5, retry=Retry(NoBackoff(), 0)
        )

    return sign_in


def test_redis_requires_a_password(redis_as: SignIn) -> None:
    for user, password in (("default", ""), ("um", "wrong")):
        with pytest.raises(redis.AuthenticationError):
            redis_as(user, password).ping()
    assert redis_as("admin").ping()


def test_the_user_of_the_health_check_can_only_ping(redis_as: SignIn) -> None:
    health = redis_as("health", "any")
    assert health.ping()
    with pytest.raises(NoPermissionError):
        health.get("ecrs##bundle")


ITEM, USER, JOURNAL = "1##product_info", "1##user_info", "ecrs##item_journal"
READABLE = {"um": USER, "cm": ITEM, "gateway": JOURNAL, "seed_milvus": JOURNAL}
"""The users of the services, and a key that each may read."""
REFUSED: tuple[Callable[[redis.Redis], Any], ...] = (
    lambda client: client.flushall(),
    lambda client: client.config_get("*"),
    lambda client: client.keys(),
    lambda client: client.scan(),
    lambda client: client.acl_list(),
    lambda client: client.replicaof("192.0.2.1", 6379),
    lambda client: client.set("ecrs##bundle", "{}"),
    lambda client: client.set(USER, "{}"),
)
"""Commands that no service may send."""
WRITING: tuple[Callable[[redis.Redis], Any], ...] = (
    lambda client: client.set(ITEM, "{}"),
    lambda client: client.xadd(JOURNAL, {"sku": "1"}),
    lambda client: client.sadd("ecrs##out_of_stock", "1"),
    lambda client: client.eval("return redis.call('SET', KEYS[1], '')", 1, ITEM),
)
"""Commands that only cm and the seed may send."""


@pytest.mark.parametrize("user", READABLE)
def test_a_service_can_neither_administer_redis_nor_write_users(redis_as: SignIn, user: str) -> None:
    for command in (*REFUSED, *(WRITING if user != "cm" else ())):
        with pytest.raises(NoPermissionError):
            command(redis_as(user))


@pytest.mark.parametrize("user", READABLE)
def test_a_service_reads_its_keys_and_no_others(redis_as: SignIn, user: str) -> None:
    client = redis_as(user)
    client.exists(READABLE[user])
    for other in {ITEM, USER} - {READABLE[user]}:
        with pytest.raises(NoPermissionError):
            client.get(other)


def test_a_script_of_cm_cannot_write_users(redis_as: SignIn) -> None:
    with pytest.raises(redis.ResponseError, match="can't access"):
        redis_as("cm").eval(f"return redis.call('SET', '{USER}', '')", 0)


def test_the_seed_cannot_flush_redis(redis_as: SignIn) -> None:
    with pytest.raises(NoPermissionError):
        redis_as("seed_redis").flushall()


@pytest.fixture
def milvus_as(stack: Stack) -> Iterator[Callable[[str], pymilvus.MilvusClient]]:
    """Return a function that signs in with a token."""
    clients: list[pymilvus.MilvusClient] = []

    def sign_in(token: str) -> pymilvus.MilvusClient:
        clients.append(
            pymilvus.MilvusClient(f"http://{stack.address('milvus')}:19530", token=token, timeout=5)
        )
        return clients[-1]

    yield sign_in
    for client in clients:
        client.close()


@pytest.mark.parametrize("token", ["", "root:Milvus", "root:wrong", "recall:wrong"])
def test_milvus_refuses_a_client_without_the_password(milvus_as: Any, token: str) -> None:
    with pytest.raises((pymilvus.MilvusException, grpc.RpcError)):
        milvus_as(token).list_collections()


def test_recall_can_search_and_change_vectors_and_nothing_else(stack: Stack, milvus_as: Any) -> None:
    client = milvus_as("recall:" + stack.secret("milvus_recall_password"))
    live = client.describe_collection(ALIAS)["collection_name"]
    assert client.query(ALIAS, output_fields=["count(*)"])[0]["count(*)"] > 0
    for refused in (
        lambda: client.drop_collection(live),
        lambda: client.drop_alias(ALIAS),
        lambda: client.create_collection("other", dimension=8),
        lambda: client.release_collection(live),
        lambda: client.create_user("other", "password"),
        lambda: client.list_users(),
    ):
        assert permission_denied(refused)


def test_the_seed_cannot_create_users_in_milvus(stack: Stack, milvus_as: Any) -> None:
    client = milvus_as("seed:" + stack.secret("milvus_seed_password"))
    assert client.list_collections()
    assert permission_denied(lambda: client.create_user("other", "password"))


def permission_denied(call: Callable[[], Any]) -> bool:
    """True if Milvus refuses a call for want of a privilege."""
    with pytest.raises((pymilvus.MilvusException, grpc.RpcError)) as refused:
        call()
    return "permission deny" in str(refused.value)
