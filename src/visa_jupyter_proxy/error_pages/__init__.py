"""The pages that people see when a request cannot be served, made once, at the start, in every language.

- `pages` renders them from `templates/` (jinja2) and `texts/`; an operator's `PAGES_DIR` replaces either.
- `texts` reads what they say.
- `policy` says what a page may do.

Control's part: workers get the finished bytes with their first message, and neither jinja2 nor a file.
"""

from visa_jupyter_proxy.error_pages.pages import TEMPLATES, load

__all__ = ["TEMPLATES", "load"]
