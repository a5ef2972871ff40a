"""Changes products all the time, and remembers what the platform acknowledged."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc

from ecrs.contract.as_pb2 import ASRequest
from ecrs.contract.as_pb2_grpc import ASServiceStub
from ecrs.contract.cm_pb2 import (
    ChangeResponse,
    CMRequest,
    PutItemsRequest,
    RemoveItemsRequest,
    SetStockRequest,
)
from ecrs.contract.cm_pb2_grpc import CMServiceStub
from ecrs.ports import PORTS
from ecrs.rpc.client import OPTIONS
from ecrs.wire.messages import from_item
from tests.attack.shop import AUTHORIZED, Shop
from tests.catalogue_model import CatalogueModel, like

CHANGES_PER_S = 2.0
OWN, NEW = 20, 60
"""How many of the bundle's products are changed, and how many are added."""
BATCH = 3
"""Most products of one change."""
TIMEOUT_S = 5.0
RETRY_S = 0.2
ANSWER_LIMIT_S = 20.0
"""Longest time until a lookup is answered after a fault."""
UNCERTAIN = (502, 503, 504)
"""Codes after which a change may or may not have happened."""


@dataclass(frozen=True)
class Change:
    """A change of the products `skus`: how to make it, and how to tell the model that it was acknowledged."""

    skus: list[str]
    send: Callable[[CMServiceStub], ChangeResponse]
    apply: Callable[[], None]


class ProductChanges:
    """Adds, marks and removes products at random, one change after the other.

    A change that fails is repeated until it is acknowledged. `model` holds the acknowledged changes, and
    `acknowledged` counts them.
    """

    def __init__(self, shop: Shop, seed: int) -> None:
        self.model = CatalogueModel()
        self.acknowledged = 0
        own = [from_item(item) for item in shop.products[OWN : 2 * OWN]]  # an attack replaces the first ones
        self._records = {info.sku_id: info for info in own}
        for number in range(NEW):
            self._records[f"soak-{number}"] = like(own[number % OWN], f"soak-{number}")
        self._random = random.Random(seed)
        self._users = shop.users
        self._uncertain: set[str] = set()
        self._denied: set[str] = set()
        self._one_at_a_time = threading.Lock()
        self._ended = threading.Event()

    @classmethod
    @contextmanager
    def running(cls, shop: Shop, seed: int) -> Iterator["ProductChanges"]:
        """Make changes while the context is open."""
        changes = cls(shop, seed)
        with _channel("cm") as channel, ThreadPoolExecutor(1) as pool:
            running = pool.submit(changes._run, CMServiceStub(channel))
            try:
                yield changes
            finally:
                changes._ended.set()
            running.result()

    def lost(self) -> list[str]:
        """Return which acknowledged changes the platform does not know; empty if it knows all."""
        with self._one_at_a_time, _channel("cm") as cm, _channel("gateway") as gateway:
            certain = CatalogueModel(
                {sku: info for sku, info in self.model.known.items() if sku not in self._uncertain},
                self.model.removed - self._uncertain,
            )
            problems = [f"{sku!r} was put, and cm called it unknown" for sku in sorted(self._denied)]
            if certain.skus:
                request = CMRequest(item_ids=certain.skus)
                problems += certain.violations(_answer(CMServiceStub(cm).cm_call, request))
            for user in self._users[:BATCH]:
                reply = _answer(ASServiceStub(gateway).as_call, ASRequest(user_id=user))
                shown = certain.hidden & {info.sku_id for info in reply.item_infos}
                problems += [f"{sku!r} is recommended, but was removed or sold out" for sku in sorted(shown)]
            return problems

    def _run(self, cm: CMServiceStub) -> None:
        while not self._ended.wait(1 / CHANGES_PER_S):
            change = self._draw()
            while not self._is_acknowledged(cm, change) and not self._ended.wait(RETRY_S):
                pass

    def _draw(self) -> Change:
        skus = self._random.sample(sorted(self._records), self._random.randint(1, BATCH))
        in_stock = self._random.random() < 0.5

        def call(method: str, request: Any) -> Callable[[CMServiceStub], ChangeResponse]:
            return lambda cm: getattr(cm, method)(request, timeout=TIMEOUT_S, metadata=AUTHORIZED)

        match self._random.choice(("put", "remove", "stock")):
            case "put":
                infos = [like(self._records[sku], sku, out_of_stock=not in_stock) for sku in skus]
                put = call("put_items", PutItemsRequest(item_infos=infos))
                return Change(skus, put, lambda: self.model.put(infos))
            case "remove":
                remove = call("remove_items", RemoveItemsRequest(item_ids=skus))
                return Change(skus, remove, lambda: self.model.remove(skus))
        mark = call("set_stock", SetStockRequest(item_ids=skus, in_stock=in_stock))
        return Change(skus, mark, lambda: self.model.set_stock(skus, in_stock=in_stock))

    def _is_acknowledged(self, cm: CMServiceStub, change: Change) -> bool:
        """Try to make a change. If it fails, its products are uncertain until it is acknowledged."""
        with self._one_at_a_time:
            try:
                reply = change.send(cm)
            except grpc.RpcError:
                self._uncertain = set(change.skus)
                return False
            if reply.error.code in UNCERTAIN:
                self._uncertain = set(change.skus)
                return False
            assert reply.error.code == 200, reply.error
            self._denied |= set(reply.missing_ids) & self.model.known.keys() - self._uncertain
            change.apply()
            self._uncertain = set()
            self.acknowledged += 1
            return True


def _channel(service: str) -> grpc.Channel:
    return grpc.insecure_channel(f"127.0.0.1:{PORTS[service]}", options=OPTIONS)


def _answer(method: Callable[..., Any], request: Any) -> Any:
    """Call `method` until it answers, with whatever code but those of a failure."""
    deadline = time.monotonic() + ANSWER_LIMIT_S
    while True:
        try:
            reply = method(request, timeout=TIMEOUT_S)
            if reply.error.code not in UNCERTAIN:
                return reply
            reason = str(reply.error)
        except grpc.RpcError as error:
            reason = str(error)
        assert time.monotonic() < deadline, f"no answer after {ANSWER_LIMIT_S} s: {reason}"
        time.sleep(RETRY_S)
