"""Direct, synchronous access to the stores and models of either profile, for the floors and the ancestor.

The environment selects them as it does for the services: ECRS_REDIS_URL, ECRS_VECTORS, ECRS_USER_TOWER,
ECRS_RANKER. Of ECRS' serving code, only the in-process model and the construction of the faiss index are
used.
"""

import threading
from collections.abc import Callable, Sequence

import grpc
import numpy as np
import redis
from pydantic import Field

from ecrs.bundle import Bundle
from ecrs.contract.pipeline_service_pb2 import Request, Tensor
from ecrs.contract.pipeline_service_pb2_grpc import PipelineServiceStub
from ecrs.recall.blending import DEPTH
from ecrs.serving.signature import ModelSignature
from ecrs.settings import BundleSettings, RedisSettings, VectorSettings

Model = Callable[[np.ndarray], np.ndarray]
"""Maps int64 ids to float32 outputs, with the shapes of the model's signature."""

Nearest = Callable[[np.ndarray], tuple[Sequence[str], Sequence[float]]]
"""Maps a user's vector, float32 (1, DIM), to the skus and squared distances of the DEPTH nearest items."""


class Settings(BundleSettings, RedisSettings, VectorSettings):
    user_tower: str = Field("inprocess", description="`inprocess`, or serving://host:port")
    ranker: str = Field("inprocess", description="`inprocess`, or serving://host:port")


def open_store(settings: RedisSettings) -> redis.Redis:
    return redis.Redis.from_url(settings.redis_url, password=settings.redis_password)


def open_model(url: str, bundle: Bundle, name: str) -> Model:
    signature = ModelSignature.load(bundle.path / name)
    if url == "inprocess":
        from ecrs.serving.inprocess import InProcessModel

        model, lock = InProcessModel(bundle.path / name), threading.Lock()

        def run(ids: np.ndarray) -> np.ndarray:
            with lock:  # a predictor is not thread-safe
                return model.run(ids)

        return run

    stub = PipelineServiceStub(grpc.insecure_channel(url.removeprefix("serving://")))

    def call(ids: np.ndarray) -> np.ndarray:
        tensor = Tensor(name=signature.feed, elem_type=0, shape=ids.shape, int64_data=ids.ravel())
        reply = stub.inference(Request(name=signature.model, tensors=[tensor]))
        (output,) = reply.tensors
        return np.array(output.float_data, dtype=np.float32).reshape(output.shape)

    return call


def open_vectors(settings: VectorSettings, bundle: Bundle) -> Nearest:
    if settings.vectors == "faiss":
        import faiss

        # The same index type as in ECRS, which depends on the size of the catalogue.
        from ecrs.storage.faiss_vectors import build_index
        from ecrs.storage.vectors import read_vectors

        skus, vectors = read_vectors(bundle.lines("product_vectors.txt"), bundle.count("product_vectors.txt"))
        index = build_index(vectors)

        def search(vector: np.ndarray) -> tuple[Sequence[str], Sequence[float]]:
            faiss.omp_set_num_threads(1)  # as ECRS does; the setting applies to the calling thread only
            distances, rows = index.search(vector, min(DEPTH, index.ntotal))
            return [skus[row] for row in rows[0].tolist() if row >= 0], distances[0][rows[0] >= 0].tolist()

        return search

    from pymilvus import MilvusClient

    from ecrs.storage.milvus_vectors import ALIAS, CONSISTENCY, milvus_address, search_params, token

    signed_in = token(settings.milvus_user, settings.milvus_password)
    client = MilvusClient(**milvus_address(settings), token=signed_in)

    def search_milvus(vector: np.ndarray) -> tuple[Sequence[str], Sequence[float]]:
        (hits,) = client.search(
            ALIAS,
            data=vector,
            limit=DEPTH,
            search_params=search_params(DEPTH),
            consistency_level=CONSISTENCY,
        )
        return [hit.id for hit in hits], [hit.distance for hit in hits]

    return search_milvus
