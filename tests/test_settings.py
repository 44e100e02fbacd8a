"""Settings: what variables mean, where they come from, and what is said about those that are wrong."""

import os
from pathlib import Path

import pytest

from visa_jupyter_proxy.routes import load as load_routes
from visa_jupyter_proxy.settings import (
    FIELDS,
    PREFIX,
    RELOADABLE,
    ConfigurationError,
    Settings,
    load,
    reloaded,
)

_ROOT = Path(__file__).parent.parent
_ORIGINAL = _ROOT / "examples" / "original"

_HOST = "write a host name or an IP address, without a scheme, a port or brackets"
_SECONDS = "write a number of seconds without a unit, above 0, at most 86400"
_SECONDS_OR_0 = "write a number of seconds without a unit, 0 or more, at most 86400"
_PORT = "write a whole number from 1 to 65535"
_WORKERS = "write a whole number from 1 to 64, or auto"
_LEVELS = "write one of emerg, alert, crit, error, warning, notice, info, debug"
_URL = "write http:// or https://, a host, and a path if any, such as https://visa.example.org/api"
_NETWORKS = "write networks, separated by commas, no bit set beyond the length, as 10.0.0.0/8,fd00::/8"
_KEY_SET = "write the path of a JSON Web Key Set, as identity providers show it"
_ORIGINS = "write origins, separated by commas: scheme and host, no path, as https://visa.example.org"


def _loaded(directory: Path, **variables: str) -> Settings:
    settings, warnings = load({PREFIX + name: value for name, value in variables.items()}, directory)
    assert () == warnings
    return settings


def _mistakes(directory: Path, **variables: str) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as caught:
        load({PREFIX + name: value for name, value in variables.items()}, directory)
    assert "\n".join(caught.value.mistakes) == str(caught.value)
    return caught.value.mistakes


class TestDefaults:
    """What holds when nothing is set."""

    def test_those_of_the_original(self, tmp_path: Path) -> None:
        """Contract section 1."""
        settings = _loaded(tmp_path)
        listening = (settings.server_host, settings.server_port)
        assert ("0.0.0.0", 8088) == listening
        assert ("localhost", 8086) == (settings.api_host, settings.api_port)
        assert 60 == settings.cache_refresh_time_s
        assert tmp_path / "data" == settings.storage_dir
        assert ("info", None) == (settings.log_level, settings.log_timezone)
        syslog = (settings.log_syslog_host, settings.log_syslog_port, settings.log_syslog_app_name)
        assert (None, None, None) == syslog

    def test_the_new_ones(self, tmp_path: Path) -> None:
        """None of them changes how the original's configuration works."""
        settings = _loaded(tmp_path)
        times = (
            "api_timeout",
            "connect_timeout",
            "response_timeout",
            "idle_timeout",
            "header_timeout",
            "drain",
        )
        assert (10, 5, 300, 75, 10, 8) == tuple(getattr(settings, f"{name}_s") for name in times)
        assert (None, None, None) == (settings.api_url, settings.api_ca_file, settings.instance_networks)
        assert ("127.0.0.0/8", "::1/128") == settings.trusted_proxies
        assert ((), ()) == (settings.server_names, settings.allowed_origins)
        assert "errors" == settings.access_log

    def test_the_environment_of_this_process_is_the_default(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """`load()` without arguments is what the commands call."""
        monkeypatch.setenv(PREFIX + "SERVER_PORT", "1234")
        assert 1234 == load()[0].server_port

    def test_a_settings_object_does_not_read_the_environment_itself(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Only `load` does, so that every mistake is reported in one way."""
        monkeypatch.setenv(PREFIX + "SERVER_PORT", "1234")
        assert 8088 == Settings().server_port

    @pytest.mark.parametrize("name", FIELDS)
    def test_every_setting_is_described_in_a_sentence(self, name: str) -> None:
        """The reference is made from these."""
        description = Settings.model_fields[name].description
        assert description is not None
        assert description.endswith(".")
        assert not name.endswith("_s") or description.startswith("Seconds ")


class TestValues:
    """What the text of a variable becomes."""

    @pytest.mark.parametrize(
        ("name", "text", "value"),
        [
            ("SERVER_HOST", "::", "::"),
            ("SERVER_HOST", "127.0.0.1", "127.0.0.1"),
            ("SERVER_PORT", " 80 ", 80),
            ("SERVER_PORT", "0", 0),
            ("API_HOST", "VISA-api_1.local", "visa-api_1.local"),
            ("API_URL", "https://VISA.example.org/api/", "https://visa.example.org/api"),
            ("API_URL", "http://[::1]:8086", "http://[::1]:8086"),
            ("CACHE_REFRESH_TIME_S", "0", 0),
            ("CACHE_REFRESH_TIME_S", "2.5", 2.5),
            ("DRAIN_S", "0", 0),
            ("API_TIMEOUT_S", "86400", 86400),
            ("OWNER_TIMEOUT_S", "2", 2),
            *(
                ("STORAGE_URL", f"{scheme}://{rest}", f"postgresql+asyncpg://{rest}")
                for scheme in ("postgresql", "postgresql+asyncpg")
                for rest in (
                    "visa:p%40ss@db:5432/visa",
                    "db/visa?ssl=require",
                    "me@/visa?host=/run/postgresql",
                )
            ),
            (
                "INSTANCE_NETWORKS",
                "10.0.0.0/8, fd00::/8 ,192.0.2.7",
                ("10.0.0.0/8", "fd00::/8", "192.0.2.7/32"),
            ),
            ("TRUSTED_PROXIES", "10.1.2.3,,10.1.2.3", ("10.1.2.3/32",)),
            ("SERVER_NAMES", "Visa.Example.org,::1,10.0.0.1", ("visa.example.org", "::1", "10.0.0.1")),
            ("ALLOWED_ORIGINS", "https://Visa.org:443,http://a:81", ("https://visa.org", "http://a:81")),
            ("VISA_URL", "/home", "/home"),
            ("VISA_URL", "https://VISA.example.org", "https://visa.example.org"),
            ("VISA_URL", "https://visa.example.org/app/", "https://visa.example.org/app/"),
            ("ACCESS_LOG", "off", "off"),
            ("LOG_LEVEL", "emerg", "emerg"),
            ("LOG_TIMEZONE", "Europe/Paris", "Europe/Paris"),
            ("LOG_SYSLOG_APP_NAME", "visa proxy", "visa proxy"),
        ],
    )
    def test_a_value_is_read(self, tmp_path: Path, name: str, text: str, value: object) -> None:
        """Lists are comma-separated; space around a value does not count."""
        settings, _ = load({PREFIX + name: text}, tmp_path)
        assert value == getattr(settings, name.lower())

    @pytest.mark.parametrize("name", [name.upper() for name in FIELDS])
    def test_an_empty_value_is_an_unset_one(self, tmp_path: Path, name: str) -> None:
        """Compose files hand on variables that nobody has set."""
        for text in ("", "  "):
            assert _loaded(tmp_path) == _loaded(tmp_path, **{name: text})

    def test_relative_paths_are_relative_to_the_working_directory(self, tmp_path: Path) -> None:
        """Absolute ones stay."""
        settings = _loaded(tmp_path, STORAGE_DIR="a/b", CONFIG_FILE="/etc/proxy.json")
        assert (tmp_path / "a/b", Path("/etc/proxy.json")) == (settings.storage_dir, settings.config_file)
        (tmp_path / "pages").mkdir()
        assert tmp_path / "pages" == _loaded(tmp_path, PAGES_DIR="pages").pages_dir

    def test_a_password_in_the_settings_is_not_shown(self, tmp_path: Path) -> None:
        """Whoever prints them, or logs a traceback with them."""
        settings = _loaded(tmp_path, STORAGE_URL="postgresql://visa:s3cr3t@db/visa")
        assert "s3cr3t" in str(settings.storage_url)
        assert "s3cr3t" not in repr(settings)
        assert "s3cr3t" not in str(settings)


class TestMistakes:
    """Variable, value, what is allowed; all of them at once."""

    @pytest.mark.parametrize(
        ("name", "text", "allowed"),
        [
            *(
                ("SERVER_PORT", text, "write a whole number from 0 to 65535")
                for text in ("abc", "-1", "65536")
            ),
            *(
                ("API_PORT", text, _PORT)
                for text in ("0", "80.0", "+80", "8_0", "\u0668", "0x50", "9" * 5000)
            ),
            *(("CACHE_REFRESH_TIME_S", text, _SECONDS_OR_0) for text in ("60s", "-1", "inf", "nan", "1e3")),
            *(("API_TIMEOUT_S", text, _SECONDS) for text in ("0", "0.0", "86401", "1 0", "10 s", ".5")),
            *(
                ("SERVER_HOST", text, _HOST)
                for text in ("http://x", "a b", "[::1]", "1.2.3.4.5", "a:80", "-a")
            ),
            *(("LOG_LEVEL", text, _LEVELS) for text in ("warn", "INFO", "verbose")),
            *(("WORKERS", text, _WORKERS) for text in ("0", "65", "-1", "2.0", "Auto", "all")),
            ("ACCESS_LOG", "yes", "write one of off, errors, all"),
            ("LOG_TIMEZONE", "Europe/Pariss", "write an IANA time zone: is Europe/Paris meant?"),
            ("LOG_TIMEZONE", "Europe/Grenoble", "write an IANA time zone such as Europe/Paris"),
            ("LOG_TIMEZONE", "../../etc/passwd", "write an IANA time zone such as Europe/Paris"),
            *(
                ("API_URL", text, _URL)
                for text in ("visa/api", "//h", "ftp://h", "http://", "http://h:0", "http://h:x")
            ),
            ("API_URL", "https://visa /api", _URL),
            *(
                ("INSTANCE_NETWORKS", text, _NETWORKS)
                for text in ("10.0.0.1/8", "10.0.0.0/33", "visa", "::/129")
            ),
            ("TRUSTED_PROXIES", "10.0.0.0/8;10.0.0.1", _NETWORKS),
            *(
                ("ALLOWED_ORIGINS", text, _ORIGINS)
                for text in ("https://a/", "visa.org", "*", "null", "https://a b")
            ),
            ("SERVER_NAMES", "https://visa.org", _HOST),
            ("OWNER_TIMEOUT_S", "1.9", "write a number of seconds without a unit, 2 or more, at most 86400"),
            ("JWKS_FILE", "none.json", f"No such file or directory: {_KEY_SET}"),
            ("JWKS_FILE", "/dev/null", f"it is no JSON: {_KEY_SET}"),
            ("JWKS_FILE", str(_ORIGINAL / "proxy.conf.json"), f"it has no keys: {_KEY_SET}"),
            *(
                (
                    "VISA_URL",
                    text,
                    "write a path of this site, such as /, or a URL, such as https://visa.example.org/",
                )
                for text in ("visa", "//evil.org", "javascript:alert(1)", "/a b")
            ),
            ("PAGES_DIR", "nowhere", "there is no such directory: write the path of one"),
            ("API_CA_FILE", "none.pem", "No such file or directory: write the path of a PEM file"),
            ("API_CA_FILE", "/dev/null", "it holds no certificate: write the path of a PEM file"),
        ],
    )
    def test_a_value_that_cannot_be_used(self, tmp_path: Path, name: str, text: str, allowed: str) -> None:
        """A mistake is never a random port, or a cache that is off."""
        (mistake,) = _mistakes(tmp_path, **{name: text})
        start, _, end = mistake.partition(" cannot be used: ")
        assert allowed == end
        assert start.startswith(f"{PREFIX}{name}: ")
        assert len(text) > 100 or text.isascii() is False or start.endswith(f'"{text}"')

    def test_keys_from_one_place_for_what_needs_keys(self, tmp_path: Path) -> None:
        """An issuer or an audience that nobody would look at is a mistake, not a comfort."""
        needs = "needs keys to verify tokens with: set JWKS_URL or JWKS_FILE too"
        assert (f"{PREFIX}JWT_ISSUER {needs}", f"{PREFIX}JWT_AUDIENCE {needs}") == _mistakes(
            tmp_path, JWT_ISSUER="https://idp", JWT_AUDIENCE="visa"
        )
        (tmp_path / "keys.json").write_text('{"keys": [{}]}')
        assert (f"{PREFIX}JWKS_URL and {PREFIX}JWKS_FILE are both set: remove one of them",) == _mistakes(
            tmp_path, JWKS_URL="https://idp/certs", JWKS_FILE="keys.json"
        )

    def test_a_link_does_not_leave_the_site_unnoticed(self, tmp_path: Path) -> None:
        """Browsers read a backslash as a slash."""
        (mistake,) = _mistakes(tmp_path, VISA_URL="/\\evil.org")
        assert "write a path of this site" in mistake

    def test_a_query_in_the_url_is_refused_and_not_shown(self, tmp_path: Path) -> None:
        """It may hold a key."""
        for text in ("https://h/api?key=s3cr3t", "https://h/api#s3cr3t"):
            (mistake,) = _mistakes(tmp_path, API_URL=text)
            assert mistake.endswith(f"{_URL}, without a query")
            assert "s3cr3t" not in mistake

    @pytest.mark.parametrize(
        "text",
        [
            "mysql://me:s3cr3t@db/visa",
            "me:s3cr3t@db/visa",
            "postgresql://me:s3cr3t@db",
            "postgresql://me:s3cr3t@db/visa/x",
            "postgresql://me:s3cr3t@/visa",
            "postgresql://me:s3cr3t@db:x/visa",
            "postgresql://me:s3cr3t@db:0/visa",
            "postgresql://me:s3cr3t@db/visa#x",
            "postgresql://me:s3c#s3cr3t@db/visa",
            "postgresql://me:s3c/s3cr3t@db/visa",
            "postgresql://me:s3c@s3cr3t@db/visa",
            "postgresql://me:s3cr3t @db/visa",
            "postgresql://db/visa?password=s3cr3t",
            "postgresql://me:s3cr3t@db/visa?sslmode=require",
        ],
    )
    def test_a_database_that_cannot_be_used(self, tmp_path: Path, text: str) -> None:
        """What is wrong, how it is written, and nothing of the password."""
        (mistake,) = _mistakes(tmp_path, STORAGE_URL=text)
        assert mistake.startswith(f"{PREFIX}STORAGE_URL: ")
        assert "write postgresql+asyncpg://USER:PASSWORD@HOST:PORT/DATABASE" in mistake
        assert "s3cr3t" not in mistake

    @pytest.mark.parametrize("name", ["API_URL", "ALLOWED_ORIGINS"])
    @pytest.mark.parametrize(
        "text",
        [
            "https://me:s3cr3t@h/api",
            "https://s3cr3t@h",
            "http://a@s3cr3t@h",
            "https://me:s3cr3t@h:x",
            "x://s3cr3t@h y",
        ],
    )
    def test_credentials_in_a_url_are_refused_and_not_shown(
        self, tmp_path: Path, name: str, text: str
    ) -> None:
        """Neither in a URL that is right otherwise, nor in one that is not."""
        (mistake,) = _mistakes(tmp_path, **{name: text})
        assert "s3cr3t" not in mistake

    def test_all_mistakes_are_reported_together(self, tmp_path: Path) -> None:
        """Each once, wherever it was found."""
        (tmp_path / ".env").write_text(f"{PREFIX}API_PORT=x\n")
        mistakes = _mistakes(tmp_path, SERVER_PORT="abc", DRAIN_S="-1", API_HOST_FILE="none", LOG_LEVEL="a")
        assert {"API_HOST_FILE", "SERVER_PORT", "API_PORT", "DRAIN_S", "LOG_LEVEL"} == {
            one.removeprefix(PREFIX).partition(":")[0] for one in mistakes
        }
        assert 5 == len(mistakes)

    def test_bytes_that_are_no_text_are_a_mistake(self, tmp_path: Path) -> None:
        """The environment may hold them; Python shows them as lone surrogates."""
        text = os.fsdecode(b"\xff\n")
        assert (f"{PREFIX}STORAGE_DIR: is not UTF-8: write it in UTF-8",) == _mistakes(
            tmp_path, STORAGE_DIR=text
        )


class TestSources:
    """The environment, `.env` and files."""

    def test_the_environment_wins_over_dot_env(self, tmp_path: Path) -> None:
        """An empty variable of the environment does not: it is unset."""
        (tmp_path / ".env").write_text(
            f"{PREFIX}SERVER_PORT=1\n{PREFIX}API_PORT=2\n{PREFIX}LOG_LEVEL=debug\n"
        )
        settings = _loaded(tmp_path, SERVER_PORT="3", LOG_LEVEL="")
        assert (3, 2, "debug") == (settings.server_port, settings.api_port, settings.log_level)

    def test_dot_env_is_read_as_others_write_it(self, tmp_path: Path) -> None:
        """Comments, quotes, `export`; `$` means nothing; what has another prefix is somebody else's."""
        (tmp_path / ".env").write_text(
            "\ufeff# comment\n"
            f"export {PREFIX}API_HOST='visa'\n"
            f'{PREFIX}STORAGE_DIR="/var/${{HOME}}" # there\n'
            "NODE_ENV=production\nVISA_PORT=abc\n",
            encoding="utf-8",
        )
        settings = _loaded(tmp_path)
        assert ("visa", Path("/var/${HOME}")) == (settings.api_host, settings.storage_dir)

    def test_a_line_of_dot_env_that_is_none_is_a_warning(self, tmp_path: Path) -> None:
        """The original ignores it silently; its text is not shown."""
        (tmp_path / ".env").write_text(f"{PREFIX}API_PORT=1\n{PREFIX}API_URL='s3cr3t\n")
        settings, warnings = load({}, tmp_path)
        assert 1 == settings.api_port
        assert (f"{tmp_path / '.env'}:2: is not NAME=value, and is ignored",) == warnings

    @pytest.mark.parametrize("what", ["a directory", "a link to nothing"])
    def test_a_dot_env_that_is_no_file_is_a_warning(self, tmp_path: Path, what: str) -> None:
        """Docker makes a directory in the place of a file that is not there to be mounted."""
        path = tmp_path / ".env"
        path.mkdir() if what == "a directory" else path.symlink_to("nowhere")
        assert (f"{path} is no file, and is ignored",) == load({}, tmp_path)[1]

    def test_a_working_directory_that_has_been_deleted(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is a mistake of whoever starts us there, as any other."""
        gone = tmp_path / "gone"
        gone.mkdir()
        monkeypatch.chdir(gone)
        gone.rmdir()
        with pytest.raises(ConfigurationError) as caught:
            load({})
        assert ("the working directory: No such file or directory: change to one that is there",) == (
            caught.value.mistakes
        )

    def test_a_dot_env_that_cannot_be_read_is_a_mistake(self, tmp_path: Path) -> None:
        """It would be surprising to start with the defaults."""
        (tmp_path / ".env").write_bytes(b"A=\xff\n")
        assert (f"{tmp_path / '.env'}: is not UTF-8: save the file as UTF-8",) == _mistakes(tmp_path)

    def test_a_variable_can_come_from_a_file(self, tmp_path: Path) -> None:
        """As container platforms hand secrets over: one line break at its end does not count."""
        (tmp_path / "host").write_text("visa\n")
        assert "visa" == _loaded(tmp_path, API_HOST_FILE="host").api_host

    def test_what_came_from_a_file_is_not_shown(self, tmp_path: Path) -> None:
        """It may be a secret."""
        path = tmp_path / "level"
        path.write_text("s3cr3t\n")
        assert (f"{PREFIX}LOG_LEVEL: the content of {path} cannot be used: {_LEVELS}",) == _mistakes(
            tmp_path, LOG_LEVEL_FILE=str(path)
        )

    def test_a_variable_and_its_file_together_are_a_mistake(self, tmp_path: Path) -> None:
        """Nobody can say which is meant."""
        (tmp_path / ".env").write_text(f"{PREFIX}API_HOST_FILE=x\n")
        assert (f"{PREFIX}API_HOST and {PREFIX}API_HOST_FILE are both set: remove one of them",) == _mistakes(
            tmp_path, API_HOST="s3cr3t"
        )

    def test_a_file_that_cannot_be_read_is_a_mistake(self, tmp_path: Path) -> None:
        """It is named, with the system's reason."""
        assert (
            f"{PREFIX}API_HOST_FILE: {tmp_path / 'x'} cannot be read: No such file or directory",
        ) == _mistakes(tmp_path, API_HOST_FILE="x")

    @pytest.mark.parametrize(
        ("name", "meant"),
        [
            (f"{PREFIX}SERVER_PROT", f"{PREFIX}SERVER_PORT"),
            (f"{PREFIX}CACHE_REFRESH", f"{PREFIX}CACHE_REFRESH_TIME_S"),
            (f"{PREFIX}API_HOST_FIL", f"{PREFIX}API_HOST_FILE"),
            (f"{PREFIX}CONFIG_FILE_FILE", f"{PREFIX}CONFIG_FILE"),
            (f"{PREFIX.lower()}server_port", f"{PREFIX}SERVER_PORT"),
        ],
    )
    def test_an_unknown_variable_of_ours_is_a_warning(self, tmp_path: Path, name: str, meant: str) -> None:
        """It names the nearest; the value is not shown."""
        warning = f"{name} {{}} is no setting, and is ignored. Is {meant} meant?"
        assert (warning.format("in the environment"),) == load({name: "s3cr3t"}, tmp_path)[1]
        (tmp_path / ".env").write_text(f"{name}=s3cr3t\n")
        assert (warning.format("in .env"),) == load({}, tmp_path)[1]

    def test_a_setting_without_its_prefix_in_the_file_is_a_warning(self, tmp_path: Path) -> None:
        """Not in the environment, which other programs share, nor beside the right one or other words."""
        (tmp_path / ".env").write_text("SERVER_PORT=9999\nEDITOR=s3cr3t\n")
        warning = f"SERVER_PORT in .env is no setting, and is ignored. Is {PREFIX}SERVER_PORT meant?"
        chosen, warnings = load({}, tmp_path)
        assert (8088, (warning,)) == (chosen.server_port, warnings)
        assert () == load({PREFIX + "SERVER_PORT": "9999"}, tmp_path)[1]
        (tmp_path / ".env").unlink()
        assert () == load({"SERVER_PORT": "9999"}, tmp_path)[1]

    def test_half_a_syslog_is_a_warning(self, tmp_path: Path) -> None:
        """All three are needed, as the original has it."""
        _, warnings = load({PREFIX + "LOG_SYSLOG_HOST": "logs", PREFIX + "LOG_SYSLOG_PORT": "514"}, tmp_path)
        assert (
            f"Nothing is sent to syslog: {PREFIX}LOG_SYSLOG_APP_NAME would have to be set too.",
        ) == warnings


class TestOriginal:
    """The files of the original, unchanged."""

    def test_its_environment_is_read(self, tmp_path: Path) -> None:
        """Without a warning, and with its values."""
        (tmp_path / ".env").write_bytes((_ORIGINAL / "dot.env").read_bytes())
        settings = _loaded(tmp_path)
        assert (
            _loaded(tmp_path / "nowhere", LOG_TIMEZONE="Europe/Paris").for_worker() == settings.for_worker()
        )
        assert tmp_path / "data" == settings.storage_dir

    def test_its_routes_are_found_beside_it(self, tmp_path: Path) -> None:
        """`proxy.conf.json` in the working directory is taken."""
        (tmp_path / "proxy.conf.json").write_bytes((_ORIGINAL / "proxy.conf.json").read_bytes())
        path = _loaded(tmp_path).config_path()
        assert tmp_path / "proxy.conf.json" == path
        assert 3 == len(load_routes(path))


class TestDerived:
    """What is made of several settings."""

    @pytest.mark.parametrize(
        ("variables", "url"),
        [
            ({}, "http://localhost:8086/api"),
            ({"API_HOST": "visa", "API_PORT": "80"}, "http://visa:80/api"),
            ({"API_HOST": "fd00::1"}, "http://[fd00::1]:8086/api"),
            ({"API_HOST": "visa", "API_URL": "https://v.org/api/"}, "https://v.org/api"),
        ],
    )
    def test_the_base_url(self, tmp_path: Path, variables: dict[str, str], url: str) -> None:
        """`API_URL` wins; otherwise as the original makes it."""
        settings = _loaded(tmp_path, **variables)
        assert (url, url) == (settings.api_base_url, settings.for_worker().api_url)

    def test_the_routes_are_those_shipped_when_there_are_no_others(self, tmp_path: Path) -> None:
        """CONFIG_FILE, the working directory, the package, in this order."""
        shipped = _loaded(tmp_path).config_path()
        assert 3 == len(load_routes(shipped))
        (tmp_path / "proxy.conf.json").touch()
        assert tmp_path / "proxy.conf.json" == _loaded(tmp_path).config_path()
        assert tmp_path / "x.json" == _loaded(tmp_path, CONFIG_FILE="x.json").config_path()

    def test_a_worker_gets_every_value_it_needs(self, tmp_path: Path) -> None:
        """As plain values, and none mixed up with another."""
        (tmp_path / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\n")
        (tmp_path / "keys.json").write_text('{"keys": [{}]}')
        given = {
            "api_ca_file": str(tmp_path / "ca.pem"),
            "api_timeout_s": 1.0,
            "jwks_file": str(tmp_path / "keys.json"),
            "jwt_issuer": "https://idp.example.org/realms/visa",
            "jwt_audience": ("visa", "account"),
            "cache_refresh_time_s": 2.0,
            "cache_stale_if_error_s": 2.5,
            "instance_networks": ("10.0.0.0/8",),
            "trusted_proxies": ("10.1.0.0/16",),
            "server_names": ("a.org",),
            "allowed_origins": ("https://b.org",),
            "access_log": "all",
            "log_client_address": False,
            "tracing": True,
            "connect_timeout_s": 3.0,
            "response_timeout_s": 4.0,
            "idle_timeout_s": 5.0,
            "header_timeout_s": 6.0,
            "request_line_bytes": 1001,
            "head_bytes": 2002,
            "head_fields": 1003,
            "body_timeout_s": 8.0,
            "write_timeout_s": 9.0,
            "tunnel_idle_timeout_s": 10.0,
            "tcp_keepalive_s": 11,
            "max_connections": 12,
            "max_connections_per_address": 13,
            "drain_s": 7.0,
            "metrics_per_instance": True,
            "log_level": "debug",
            "log_timezone": "UTC",
            "log_syslog_host": "logs",
            "log_syslog_port": 514,
            "log_syslog_app_name": "proxy",
        }
        texts = {
            name.upper(): ",".join(value)
            if isinstance(value, tuple)
            else ("off", "on")[value]
            if isinstance(value, bool)
            else str(value)
            for name, value in given.items()
        }
        worker = _loaded(tmp_path, **texts).for_worker()
        assert {"api_url", "jwks_url", *given} == set(worker.__struct_fields__)
        assert given == {name: getattr(worker, name) for name in given}
        url = "https://idp.example.org/realms/visa/protocol/openid-connect/certs"
        assert url == _loaded(tmp_path, JWKS_URL=url).for_worker().jwks_url


class TestWorkers:
    """How many processes serve."""

    def test_as_many_as_are_written(self, tmp_path: Path) -> None:
        """One unless another number is."""
        assert (1, 7) == (_loaded(tmp_path).workers, _loaded(tmp_path, WORKERS="7").workers)

    def test_auto_is_what_may_be_used(self, tmp_path: Path) -> None:
        """Not what the machine has: with one CPU allowed it is one."""
        allowed = os.sched_getaffinity(0)
        assert _loaded(tmp_path, WORKERS="auto").workers <= len(allowed)
        os.sched_setaffinity(0, {min(allowed)})
        try:
            assert 1 == _loaded(tmp_path, WORKERS="auto").workers
        finally:
            os.sched_setaffinity(0, allowed)


class TestAdmin:
    """Who can reach the admin listener, and with what."""

    @pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
    def test_loopback_needs_no_token(self, tmp_path: Path, host: str) -> None:
        """Only this machine can reach it."""
        assert _loaded(tmp_path, ADMIN_HOST=host).admin_token is None

    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "proxy.example.org"])
    def test_any_other_address_does(self, tmp_path: Path, host: str) -> None:
        """The mistake says what to set; with a token it is none."""
        (mistake,) = _mistakes(tmp_path, ADMIN_HOST=host)
        assert f"{PREFIX}ADMIN_TOKEN: set it, for {PREFIX}ADMIN_HOST ({host}) can be reached" in mistake
        loaded = _loaded(tmp_path, ADMIN_HOST=host, ADMIN_TOKEN="0123456789abcdef")
        assert "0123456789abcdef" == loaded.admin_token
        assert "0123456789abcdef" not in repr(loaded)

    def test_a_token_that_is_none_is_not_shown(self, tmp_path: Path) -> None:
        """Most of it may be the one that is meant; a reload puts the mistake into the log."""
        (mistake,) = _mistakes(tmp_path, ADMIN_TOKEN="0123 456789abcdef")
        assert mistake.startswith(f"{PREFIX}ADMIN_TOKEN: what is set cannot be used: write 16 characters")
        assert "456789" not in mistake

    @pytest.mark.parametrize("token", ["short", "fifteen-letters", "0123456789 abcdef", "0123456789=abcdef"])
    def test_a_token_that_is_none(self, tmp_path: Path, token: str) -> None:
        """Too short, or with what cannot stand behind `Bearer`; it is not repeated."""
        (mistake,) = _mistakes(tmp_path, ADMIN_TOKEN_FILE=str(_file(tmp_path, token)))
        assert (True, False) == ("write 16 characters or more" in mistake, token in mistake)

    def test_on_and_off(self, tmp_path: Path) -> None:
        """Nothing else is taken for one of them."""
        assert not _loaded(tmp_path).metrics_per_instance
        (mistake,) = _mistakes(tmp_path, METRICS_PER_INSTANCE="true")
        assert "write on or off" in mistake


def _file(directory: Path, text: str) -> Path:
    path = directory / "secret"
    path.write_text(text)
    return path


class TestReload:
    """Which settings a reload changes: all but what was bound, opened or counted at the start."""

    def test_there_are_such_settings(self) -> None:
        """A name that is none would change nothing."""
        assert set() == RELOADABLE - set(FIELDS)

    @pytest.mark.parametrize(
        "name", ["SERVER_HOST", "SERVER_PORT", "WORKERS", "STORAGE_DIR", "STORAGE_URL", "ADMIN_PORT"]
    )
    def test_addresses_workers_and_storage_are_not_among_them(self, name: str) -> None:
        """They would need another socket, process or store."""
        assert name.lower() not in RELOADABLE

    def test_what_may_change_is_taken_and_the_rest_is_kept(self, tmp_path: Path) -> None:
        """Both are named."""
        before, _ = load({PREFIX + "WORKERS": "2"}, tmp_path)
        read, _ = load({PREFIX + "WORKERS": "3", PREFIX + "HEAD_FIELDS": "20"}, tmp_path)
        settings, changed, kept = reloaded(before, read)
        assert (("HEAD_FIELDS",), ("WORKERS",)) == (changed, kept)
        assert (20, 2) == (settings.head_fields, settings.workers)

    def test_nothing_has_changed(self, tmp_path: Path) -> None:
        """Then nothing does."""
        before, _ = load({}, tmp_path)
        assert (before, (), ()) == reloaded(before, load({}, tmp_path)[0])
