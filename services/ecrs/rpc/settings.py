"""Settings that every service has, and the base class that reads settings."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from ecrs.rpc.own_address import own_address

SECRETS_DIR = Path("/run/secrets")


class EnvironmentSettings(BaseSettings):
    """Base of all settings: read from `ECRS_…` in the environment or from files in SECRETS_DIR."""

    model_config = SettingsConfigDict(
        env_prefix="ECRS_",
        secrets_dir=SECRETS_DIR if SECRETS_DIR.is_dir() else None,
        extra="ignore",
    )


class ServerSettings(EnvironmentSettings):
    """Settings of every service. `port` defaults to the service's own port, `metrics_port` to `port` + 1."""

    host: Annotated[str, AfterValidator(own_address)] = Field(
        "127.0.0.1", description="address to listen on, or a name of this machine on one of its networks"
    )
    port: int | None = Field(None, description="gRPC port; 0 for a free one")
    metrics_port: int | None = Field(None, description="HTTP port of /metrics and /health; default: port + 1")
    grace_s: float = Field(5.0, description="time that calls in flight have to finish at SIGTERM")
    check_interval_s: float = Field(1.0, description="time between two health checks of the dependencies")
    startup_wait_s: float = Field(
        30.0, description="at the start, longest wait for dependencies that the service can work without"
    )
    call_timeout_s: float = Field(1.0, description="deadline of a call whose caller set none")
    reflection: bool = Field(False, description="whether gRPC reflection describes the methods to clients")


class LogSettings(EnvironmentSettings):
    """The log of a service: standard output, or a file that rotates."""

    log_file: Path | None = Field(None, description="file for the log in place of standard output")
    log_file_bytes: int = Field(10_000_000, ge=100_000, description="size at which the log file is rotated")
    log_file_days: int = Field(7, ge=1, description="days after which the log file is rotated")
    log_files_kept: int = Field(3, ge=0, description="number of older log files that are kept")
