"""The few pages that people see: a login to approve, and the front page."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from tsrt.testing.control.http import HTTPResponse
from tsrt.testing.control.logins import PendingLogin
from tsrt.testing.control.records import User

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
}

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ font: 1rem/1.5 sans-serif; max-width: 36rem; margin: 3rem auto; }}
button, select {{ font: inherit; }}
</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""

_FORM = """<p>The machine <strong>{hostname}</strong> wants to join the tailnet
<strong>{domain}</strong>.</p>
{problem}
<form method="post">
<p><label>Let it in as <select name="user">{options}</select></label></p>
<p><button name="verdict" value="approve">Approve</button>
<button name="verdict" value="deny">Refuse</button></p>
</form>"""


def page(title: str, body: str, status: int = 200) -> HTTPResponse:
    """
    Make a page.

    @param title: plain text.
    @param body: HTML.
    @param status: the status code.
    """
    text = _PAGE.format(title=escape(title), body=body)
    return HTTPResponse(
        status, text.encode("utf-8"), "text/html; charset=utf-8", _HEADERS
    )


def frontPage(domain: str) -> HTTPResponse:
    """What a person sees who opens the server's own address."""
    body = (
        "<p>This is a control server for development and tests. Give its address "
        "to a client as the login server.</p>"
    )
    return page(f"Tailnet {domain}", body)


def loginPage(
    login: PendingLogin, users: Iterable[User], domain: str, problem: str = ""
) -> HTTPResponse:
    """
    Ask a person whether to let a machine in.

    @param login: the login that waits.
    @param users: who it may be let in as.
    @param domain: the tailnet.
    @param problem: why the last try failed.
    """
    options = "".join(
        f'<option value="{escape(user.login)}">{escape(user.login)}</option>'
        for user in users
    )
    body = _FORM.format(
        hostname=escape(login.hostname or "without a name"),
        domain=escape(domain),
        problem=f"<p><em>{escape(problem)}</em></p>" if problem else "",
        options=options,
    )
    return page("Log in", body, 400 if problem else 200)


def donePage(text: str) -> HTTPResponse:
    """Tell a person that the matter is settled."""
    return page("Log in", f"<p>{escape(text)}</p>")


def gonePage() -> HTTPResponse:
    """Tell a person that there is nothing to approve any more."""
    return page("Log in", "<p>This login is unknown, settled or too old.</p>", 404)
