"""Which settings a reload changes, and what becomes of those that it does not."""

from typing import Final, NamedTuple

from visa_jupyter_proxy.settings.settings import FIELDS, Settings

RELOADABLE: Final = frozenset(
    {
        "jwks_url",
        "jwks_file",
        "jwt_issuer",
        "jwt_audience",
        "cache_refresh_time_s",
        "cache_stale_if_error_s",
        "recheck_s",
        "access_grace_s",
        "config_file",
        "pages_dir",
        "visa_url",
        "instance_networks",
        "trusted_proxies",
        "server_names",
        "allowed_origins",
        "access_log",
        "log_client_address",
        "connect_timeout_s",
        "response_timeout_s",
        "idle_timeout_s",
        "header_timeout_s",
        "request_line_bytes",
        "head_bytes",
        "head_fields",
        "body_timeout_s",
        "write_timeout_s",
        "tunnel_idle_timeout_s",
        "tcp_keepalive_s",
        "max_connections",
        "drain_s",
        "log_level",
        "log_timezone",
        "log_syslog_host",
        "log_syslog_port",
        "log_syslog_app_name",
    }
)
"""The others are what was bound, opened or counted at the start: addresses, workers, the journal."""


class Reloaded(NamedTuple):
    """What a reload makes of settings."""

    settings: Settings
    changed: tuple[str, ...]
    """Those that are others now, by their names without the prefix."""
    kept: tuple[str, ...]
    """Those that would be others, and change at the next start."""


def reloaded(settings: Settings, read: Settings) -> Reloaded:
    """Return `settings` with whatever may change of what has been `read` anew."""
    changed = [name for name in FIELDS if getattr(settings, name) != getattr(read, name)]
    taken = [name for name in changed if name in RELOADABLE]
    return Reloaded(
        settings.model_copy(update={name: getattr(read, name) for name in taken}),
        tuple(name.upper() for name in taken),
        tuple(name.upper() for name in changed if name not in RELOADABLE),
    )
