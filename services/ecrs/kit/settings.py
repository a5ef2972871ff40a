"""Settings from the environment (`ECRS_…`) and from secret files (`/run/secrets/ecrs_…`)."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

SECRETS = Path("/run/secrets")


class Settings(BaseSettings):
    """Base of all settings: where they come from."""

    model_config = SettingsConfigDict(
        env_prefix="ECRS_",
        secrets_dir=SECRETS if SECRETS.is_dir() else None,
        extra="ignore",
    )


class ServerSettings(Settings):
    """What every service has. `port` and `metrics_port` default to the service's own."""

    host: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0 in containers only")
    port: int | None = Field(None, description="gRPC port; 0 takes a free one")
    metrics_port: int | None = Field(None, description="/metrics and /health; default port + 1")
    grace_s: float = Field(5.0, description="time that calls in flight get at SIGTERM")
    check_interval_s: float = Field(1.0, description="between two checks of what the service needs")
    patience_s: float = Field(
        30.0, description="how long to be NOT_SERVING, at the start, for what the service can do without"
    )
    call_timeout_s: float = Field(1.0, description="for a call whose caller set no deadline")


class TargetSettings(Settings):
    """Where the services are, as gRPC targets."""

    um_target: str = "127.0.0.1:8910"
    cm_target: str = "127.0.0.1:8920"
    gateway_target: str = "127.0.0.1:8930"
    recall_target: str = "127.0.0.1:8950"
    rank_target: str = "127.0.0.1:8960"


class RedisSettings(Settings):
    redis_url: str = Field("redis://127.0.0.1:6379/0", description="redis:// or unix:// URL")
    redis_password: str | None = None


class BundleSettings(Settings):
    bundle: Path = Field(Path("artifacts/bundles/current"), description="the bundle to serve")


class VectorSettings(Settings):
    vectors: str = Field("faiss", description="`faiss`, or milvus://host:port[/database]")
    milvus_password: str | None = Field(None, description="of Milvus' user root")
    items_dir: Path | None = Field(None, description="where faiss keeps added and removed items")
