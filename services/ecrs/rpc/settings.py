"""TODO ecrs.rpc.settings."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

SECRETS_DIR = Path("/run/secrets")


class EnvironmentSettings(BaseSettings):
    """Base of all settings: where they come from."""

    model_config = SettingsConfigDict(
        env_prefix="ECRS_",
        secrets_dir=SECRETS_DIR if SECRETS_DIR.is_dir() else None,
        extra="ignore",
    )


class ServerSettings(EnvironmentSettings):
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
