"""Groups of settings that several services share, for `ecrs.rpc.settings.EnvironmentSettings`."""

from pathlib import Path

from pydantic import Field

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

    redis_url: str = Field("redis://127.0.0.1:6379/0", description="redis:// or unix:// URL")
    redis_password: str | None = None


class BundleSettings(EnvironmentSettings):
    """The bundle that a service uses."""

    bundle: Path = Field(Path("artifacts/bundles/current"), description="directory of the bundle to serve")


class VectorSettings(EnvironmentSettings):
    """The vector store."""

    vectors: str = Field("faiss", description="`faiss`, or milvus://host:port[/database]")
    milvus_password: str | None = Field(None, description="password of Milvus' user root")
    items_dir: Path | None = Field(None, description="directory where faiss keeps added and removed items")


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
