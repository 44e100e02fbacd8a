"""PLACEHOLDER."""
import msgspec


class Rewrite(msgspec.Struct, frozen=True):
    """One rule of `pathRewrite`: a JavaScript pattern and its replacement."""

    pattern: str
    replacement: str


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One service of `proxy.conf.json`, checked, as plain values (it travels to the workers)."""

    match: str
    type: str
    name: str
    remote_port: int
    ws: bool = False
    path_rewrite: tuple[Rewrite, ...] = ()
    remote_scheme: str = "http"
    remote_ca: str | None = None
    remote_verify: bool = True
    set_headers: tuple[tuple[str, str], ...] = ()
    strip_credentials: bool = True
