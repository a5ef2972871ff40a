"""Groups of settings that several services share, for `ecrs.rpc.settings.EnvironmentSettings`."""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from ecrs.rpc.settings import EnvironmentSettings


class TargetSettings(EnvironmentSettings):
    """The gRPC targets of the services."""

    um_target: str = "127.0.0.1:8910"
    cm_target: str = "127.0.0.1:8920"
    gateway_target: str = "127.0.0.1:8930"
    recall_target: str = "127.0.0.1:8950"
    rank_target: str = "127.0.0.1:8960"


class RedisSettings(EnvironmentSettings):
    """The profile store, in Redis."""

    redis_url: str = Field(
        "redis://127.0.0.1:6379/0", description="redis://[user@]host:port/0, rediss:// for TLS, or unix://"
    )
    redis_password: str | None = None
    redis_ca: Path | None = Field(None, description="file of the CA that signed the store's certificate")

    @model_validator(mode="after")
    def _check_tls(self) -> Self:
        _check_ca(self.redis_ca, self.redis_url, "rediss://")
        return self


class JournalSettings(RedisSettings):
    """The journal of item changes."""

    item_journal: str = Field(
        "redis", description="`redis`, in the profile store's Redis, or sqlite:///path of a file"
    )


class BundleSettings(EnvironmentSettings):
    """The bundle that a service uses."""

    bundle: Path = Field(Path("artifacts/bundles/current"), description="directory of the bundle to serve")


class VectorSettings(EnvironmentSettings):
    """The vector store."""

    vectors: str = Field(
        "faiss", description="`faiss`, or milvus://host:port[/database], milvus+tls:// for TLS"
    )
    milvus_user: str = "root"
    milvus_password: str | None = None
    milvus_ca: Path | None = Field(None, description="file of the CA that signed Milvus' certificate")

    @property
    def is_milvus(self) -> bool:
        """True if `vectors` names a Milvus."""
        return self.vectors.startswith(("milvus://", "milvus+tls://"))

    @model_validator(mode="after")
    def _check_tls(self) -> Self:
        _check_ca(self.milvus_ca, self.vectors, "milvus+tls://")
        return self


class ItemTowerSettings(EnvironmentSettings):
    """The item tower, which computes the vectors of items that people add."""

    item_tower: str = Field("inprocess", description="`inprocess`, or serving://host:port")


class WriteSettings(EnvironmentSettings):
    """The token that a caller needs for the methods that change something."""

    write_token: str | None = Field(
        None, repr=False, description="the token; without one, changes are refused"
    )


class RunSettings(EnvironmentSettings):
    """The embedded platform on this machine."""

    run_dir: Path = Field(
        Path("artifacts/run"), description="directory of its data, logs, process ids and write token"
    )


def write_token_path(run_dir: Path) -> Path:
    """Return the path of the file from which an embedded platform's owner reads its write token."""
    return run_dir / "write_token"


def _check_ca(ca: Path | None, url: str, scheme: str) -> None:
    """Raise ValueError for a CA that would not be used, because `url` does not begin with `scheme`."""
    if ca and not url.startswith(scheme):
        raise ValueError(f"the store's CA {ca} needs an address that begins with {scheme}")
