"""What the operator sets: variables of the environment or of `.env`, read and checked once, at the start.

Every variable has the prefix `VISA_JUPYTER_PROXY_`; the field's name is the rest in lower case, its default
stands as one would write it. An empty value means unset. Any variable can be given as `<NAME>_FILE`: the
file's content is the value, and is never shown.
"""

from importlib import resources
from pathlib import Path
from typing import Annotated, Any, override

from pydantic import Field
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from visa_jupyter_proxy import logs
from visa_jupyter_proxy.mailbox import WorkerSettings
from visa_jupyter_proxy.settings import databases, parsing

PREFIX = "VISA_JUPYTER_PROXY_"

type Port = Annotated[int, parsing.whole_number(1, 65535)]
type ListeningPort = Annotated[int, parsing.whole_number(0, 65535)]
type Timeout = Annotated[float, parsing.seconds(above_zero=True)]
type Duration = Annotated[float, parsing.seconds(above_zero=False)]
type Hosts = Annotated[tuple[str, ...], parsing.comma_separated(parsing.host)]
type Networks = Annotated[tuple[str, ...], parsing.comma_separated(parsing.network)]
type Origins = Annotated[tuple[str, ...], parsing.comma_separated(parsing.origin)]


def _setting(default: str | None, description: str, *, is_secret: bool = False) -> Any:
    return Field(default=default, description=description, repr=not is_secret)


class Settings(BaseSettings):
    """All settings, checked. `load` makes one; fields given to the class itself are checked too."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True, validate_default=True)

    working_directory: Path = Field(default_factory=Path.cwd, exclude=True)
    """Not a variable: what relative paths are relative to."""

    server_host: Annotated[str, parsing.host_name] = _setting(
        "0.0.0.0",  # noqa: S104 -- the original's default: in a container any other is of no use
        "Address to listen on; `::` is all addresses, IPv6 and IPv4.",
    )
    server_port: ListeningPort = _setting("8088", "Port to listen on; 0 takes a free one, for tests.")
    api_host: Annotated[str, parsing.host_name] = _setting(
        "localhost", "Host of the VISA API server, used unless `API_URL` is set."
    )
    api_port: Port = _setting("8086", "Port of the VISA API server, used unless `API_URL` is set.")
    api_url: Annotated[str | None, parsing.url] = _setting(
        None, "Base URL of the VISA API, `http` or `https`; wins over host and port: `http://HOST:PORT/api`."
    )
    api_ca_file: Annotated[Path | None, parsing.certificate_file] = _setting(
        None, "PEM file with the authorities to trust for an `https` API; the system's own when unset."
    )
    api_timeout_s: Timeout = _setting(
        "10",
        "Seconds for a whole answer of the VISA API; its own question to the identity provider takes 2.5.",
    )
    jwks_url: Annotated[str | None, parsing.url] = _setting(
        None,
        "Where the identity provider shows its keys (JWKS): tokens that none of them has signed, or whose "
        "`exp` is past by more than 10 s, are refused before VISA is asked. While they cannot be had, VISA "
        "alone judges.",
    )
    jwks_file: Annotated[Path | None, parsing.key_set_file] = _setting(
        None, "The same from a file, which is read again from time to time; not both."
    )
    jwt_issuer: str | None = _setting(
        None, "What `iss` of a token has to be, when keys are given; any when unset."
    )
    jwt_audience: Annotated[tuple[str, ...], parsing.comma_separated(str)] = _setting(
        "", "What `aud` of a token has to name one of, when keys are given; any when unset."
    )
    cache_refresh_time_s: Duration = _setting(
        "60",
        "Seconds for which an authorisation is reused, never past the token's `exp` (10 s when VISA accepts "
        "one that is past it); 0 asks the VISA API for every request.",
    )
    cache_stale_if_error_s: Duration = _setting(
        "120",
        "Seconds for which an authorisation goes on when VISA does not answer, or not as it should (RFC 5861 "
        "section 4): never past the token's `exp`, nor after VISA has refused; 0 is never.",
    )
    recheck_s: Duration = _setting(
        "60",
        "Seconds between two questions to the VISA API whether the user of open WebSockets may still use the "
        "instance; 0 never asks.",
    )
    access_grace_s: Duration = _setting(
        "600",
        "Seconds for which WebSockets stay open while the VISA API refuses their user's newest token: "
        "tokens rotate, and VISA Accounts may be unwell.",
    )
    storage_dir: Annotated[Path, parsing.path] = _setting(
        "data",
        "Directory for the journal of notebook sessions, on this machine: no network file system. "
        "Made when missing.",
    )
    storage_url: Annotated[str | None, databases.database_url] = _setting(
        None,
        "PostgreSQL for the journal instead, for several nodes: "
        "`postgresql+asyncpg://USER:PASSWORD@HOST:PORT/DATABASE`.",
        is_secret=True,
    )
    owner_timeout_s: Annotated[float, parsing.seconds(above_zero=True, least=2)] = _setting(
        "15", "Seconds without a heartbeat until a proxy's sessions are ended by another; on all nodes alike."
    )
    session_linger_s: Duration = _setting(
        "5",
        "Seconds without a connection until a notebook session is closed: its browser may come back.",
    )
    session_retention_days: Annotated[int | None, parsing.whole_number(1, 36500)] = _setting(
        None, "Days for which a closed notebook session stays in the journal; when unset, for ever."
    )
    config_file: Annotated[Path | None, parsing.path] = _setting(
        None, "The routes; when unset, `proxy.conf.json` in the working directory, or else the one shipped."
    )
    instance_networks: Annotated[tuple[str, ...] | None, parsing.comma_separated(parsing.network)] = _setting(
        None,
        "Networks an instance may be in; when unset, all unicast addresses except loopback and link-local.",
    )
    trusted_proxies: Networks = _setting(
        "127.0.0.0/8,::1/128",
        "Networks of the proxies whose `X-Forwarded-*` and `X-Request-Id` are believed.",
    )
    server_names: Hosts = _setting(
        "", "Host names this proxy answers for, without ports; when unset, `Host` is not checked."
    )
    allowed_origins: Origins = _setting(
        "", "Origins, besides the proxy's own, whose pages may open WebSockets: `https://visa.example.org`."
    )
    visa_url: Annotated[str, parsing.link] = _setting(
        "/", "Where people find VISA, for the pages that they see when a request cannot be served."
    )
    pages_dir: Annotated[Path | None, parsing.directory] = _setting(
        None, "Directory of templates and texts that replace those of these pages."
    )
    access_log: Annotated[str, parsing.one_of("off", "errors", "all")] = _setting(
        "errors",
        "Which requests and WebSockets get a line in the log: none (`off`); refused and failed ones, and "
        "every WebSocket when it ends (`errors`); `all`.",
    )
    log_client_address: Annotated[bool, parsing.switch] = _setting(
        "on",
        "Whether the addresses of clients are in the log; without them (`off`) it has user ids alone. Who "
        "ends connections of others, at the admin listener, is in it by address all the same.",
    )
    tracing: Annotated[bool, parsing.tracing] = _setting(
        "off",
        "Whether spans are made and sent with OpenTelemetry (`on`), as its own variables say "
        "(`OTEL_EXPORTER_OTLP_ENDPOINT`); needs the extra `[otel]`.",
    )
    connect_timeout_s: Timeout = _setting(
        "5", "Seconds to connect to an instance; nginx has 60, but an instance is on the same network."
    )
    response_timeout_s: Timeout = _setting(
        "300",
        "Seconds until the head of an instance's response; nginx has 60, but cells and uploads take longer.",
    )
    idle_timeout_s: Timeout = _setting(
        "75", "Seconds for which a connection without a request is kept open, as nginx's `keepalive_timeout`."
    )
    header_timeout_s: Timeout = _setting(
        "10",
        "Seconds for a whole request head, and for the first one to come; nginx has 60, HAProxy advises 10.",
    )
    request_line_bytes: Annotated[int, parsing.whole_number(256, 65536)] = _setting(
        "8192", "Longest request line that is read; nginx's `large_client_header_buffers` too."
    )
    head_bytes: Annotated[int, parsing.whole_number(1024, 1048576)] = _setting(
        "32768", "Largest request head that is read, as nginx's four buffers of 8 KiB."
    )
    head_fields: Annotated[int, parsing.whole_number(10, 10000)] = _setting(
        "100", "Most fields in a request head; Apache's `LimitRequestFields` too, HAProxy allows 101."
    )
    body_timeout_s: Timeout = _setting(
        "60", "Seconds without any byte of a request body; nginx's `client_body_timeout` too."
    )
    write_timeout_s: Timeout = _setting(
        "60", "Seconds in which a client takes no byte of its response; nginx's `send_timeout` too."
    )
    tunnel_idle_timeout_s: Duration = _setting(
        "0", "Seconds without any byte on a WebSocket until it is closed; 0 is never: an open tab is idle."
    )
    tcp_keepalive_s: Annotated[int, parsing.whole_number(0, 32767)] = _setting(
        "60", "Seconds of silence until TCP looks whether a WebSocket's peer is there; 0 is never."
    )
    admin_host: Annotated[str, parsing.host_name] = _setting(
        "127.0.0.1",
        "Address of the admin listener: health, metrics, API and board; never reached through `SERVER_PORT`.",
    )
    admin_port: ListeningPort = _setting(
        "8089",
        "Its port; 0 takes a free one, which the log names. Unset and in use, it takes a free one, too: "
        "several proxies may run on a machine.",
    )
    admin_token: Annotated[str | None, parsing.admin_token] = _setting(
        None,
        "Bearer token of the admin listener, for all but `/health/*`; required when `ADMIN_HOST` is not "
        "loopback.",
        is_secret=True,
    )
    metrics_per_instance: Annotated[bool, parsing.switch] = _setting(
        "off", "Whether there are metrics for each instance, which is a label with many values."
    )
    workers: Annotated[int, parsing.workers] = _setting(
        "1",
        "Processes that serve, about 40 MB each; `auto` is as many as the CPUs that the proxy may use.",
    )
    max_connections: Annotated[int, parsing.whole_number(0, 1000000)] = _setting(
        "0", "Most client connections at a time; the others wait. 0 is what the file descriptors allow."
    )
    max_connections_per_address: Annotated[int, parsing.whole_number(0, 1000000)] = _setting(
        "0",
        "Most connections of one address (in IPv6, of one network of 64 bits); 0 is any number: a front "
        "proxy is one address.",
    )
    drain_s: Duration = _setting(
        "8", "Seconds for what is running to end after SIGTERM; Docker kills after 10."
    )
    log_level: Annotated[str, parsing.one_of(*logs.LEVELS)] = _setting(
        "info", "Least severe level that is logged, by its syslog name (RFC 5424 6.2.1)."
    )
    log_timezone: Annotated[str | None, parsing.timezone] = _setting(
        None, "IANA time zone of the log's timestamps, such as `Europe/Paris`; the system's own when unset."
    )
    log_syslog_host: Annotated[str | None, parsing.host_name] = _setting(
        None, "Host to send the log to as well, by UDP; used when host, port and app name are all set."
    )
    log_syslog_port: Annotated[int | None, parsing.whole_number(1, 65535)] = _setting(
        None, "Port of the syslog host, 514 by custom (RFC 5426 3.3)."
    )
    log_syslog_app_name: str | None = _setting(None, "APP-NAME of the syslog messages (RFC 5424 6.2.5).")

    @property
    def secrets(self) -> frozenset[str]:
        """Names of the fields that are never shown."""
        return frozenset(name for name, field in type(self).model_fields.items() if not field.repr)

    @property
    def api_base_url(self) -> str:
        """Base URL of the VISA API, without a slash at its end."""
        return self.api_url or f"http://{parsing.in_url(self.api_host)}:{self.api_port}/api"

    def config_path(self) -> Path:
        """Return where the routes are. Whether the file can be used is for `routes.load` to say."""
        if self.config_file is not None:
            return self.config_file
        path = self.working_directory / "proxy.conf.json"
        if path.exists() or path.is_symlink():  # one that leads nowhere is a mistake, no absence
            return path
        return Path(str(resources.files("visa_jupyter_proxy") / "proxy.conf.json"))

    def for_worker(self) -> WorkerSettings:
        """Return what a worker has to know, as plain values."""
        return WorkerSettings(
            api_url=self.api_base_url,
            api_ca_file=None if self.api_ca_file is None else str(self.api_ca_file),
            api_timeout_s=self.api_timeout_s,
            jwks_url=self.jwks_url,
            jwks_file=None if self.jwks_file is None else str(self.jwks_file),
            jwt_issuer=self.jwt_issuer,
            jwt_audience=self.jwt_audience,
            cache_refresh_time_s=self.cache_refresh_time_s,
            cache_stale_if_error_s=self.cache_stale_if_error_s,
            instance_networks=self.instance_networks,
            trusted_proxies=self.trusted_proxies,
            server_names=self.server_names,
            allowed_origins=self.allowed_origins,
            access_log=self.access_log,
            log_client_address=self.log_client_address,
            tracing=self.tracing,
            connect_timeout_s=self.connect_timeout_s,
            response_timeout_s=self.response_timeout_s,
            idle_timeout_s=self.idle_timeout_s,
            header_timeout_s=self.header_timeout_s,
            request_line_bytes=self.request_line_bytes,
            head_bytes=self.head_bytes,
            head_fields=self.head_fields,
            body_timeout_s=self.body_timeout_s,
            write_timeout_s=self.write_timeout_s,
            tunnel_idle_timeout_s=self.tunnel_idle_timeout_s,
            tcp_keepalive_s=self.tcp_keepalive_s,
            max_connections=self.max_connections,
            max_connections_per_address=self.max_connections_per_address,
            drain_s=self.drain_s,
            metrics_per_instance=self.metrics_per_instance,
            log_level=self.log_level,
            log_timezone=self.log_timezone,
            log_syslog_host=self.log_syslog_host,
            log_syslog_port=self.log_syslog_port,
            log_syslog_app_name=self.log_syslog_app_name,
        )

    @classmethod
    @override
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # `load` reads the environment, for the files and for mistakes that name what was written where.
        return (init_settings,)


FIELDS = tuple(name for name in Settings.model_fields if name != "working_directory")
"""The settings in the order of the documentation; `PREFIX + name.upper()` is the variable."""
