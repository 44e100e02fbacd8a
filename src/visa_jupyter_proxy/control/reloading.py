"""A reload: the configuration is read again, checked, and swapped whole; a mistake keeps the old one."""

from collections.abc import Callable

from visa_jupyter_proxy import logs
from visa_jupyter_proxy.control.caller import Answer
from visa_jupyter_proxy.control.configuration import Configuration, Read, renewed
from visa_jupyter_proxy.control.service_manager import ServiceManager
from visa_jupyter_proxy.control.supervisor import Supervisor
from visa_jupyter_proxy.routes import ConfigurationError
from visa_jupyter_proxy.settings import Settings


class Reloading:
    """The configuration that holds, and how it is replaced."""

    def __init__(
        self,
        configuration: Configuration,
        read: Read,
        supervisor: Supervisor,
        service_manager: ServiceManager,
        changed: Callable[[Configuration], None],
    ) -> None:
        """`read` is asked for the next configuration; `changed` is told of it when it holds."""
        self.configuration = configuration
        self._read = read
        self._supervisor = supervisor
        self._service_manager = service_manager
        self._changed = changed

    def reload(self) -> Answer:
        """Read the configuration, and go by it from the next request on; the answer is for who has asked."""
        self._service_manager.reloading()
        try:
            renewal = renewed(self.configuration, self._read(), self._supervisor.places)
        except ConfigurationError as error:
            for mistake in error.mistakes:
                logs.get().error("not reloaded: the old configuration stays", mistake=mistake)
            return Answer(mistakes=error.mistakes)
        finally:
            self._service_manager.ready("serving")
        self._use(renewal.configuration)
        logs.get().notice(
            "reloaded", changed=", ".join(renewal.changed), at_the_next_start=", ".join(renewal.kept)
        )
        warnings = renewal.configuration.warnings
        return Answer(changed=renewal.changed, at_the_next_start=renewal.kept, warnings=warnings)

    def _use(self, configuration: Configuration) -> None:
        self.configuration = configuration
        configure_logs(configuration.settings)
        self._supervisor.reload(configuration.start())
        self._changed(configuration)
        warn(configuration)


def configure_logs(settings: Settings) -> None:
    """Have this process log as the settings say."""
    logs.configure(
        settings.log_level,
        settings.log_timezone,
        settings.log_syslog_host,
        settings.log_syslog_port,
        settings.log_syslog_app_name,
    )


def warn(configuration: Configuration) -> None:
    """Log what is no mistake, but hardly meant."""
    for warning in configuration.warnings:
        logs.get().warning(warning)
