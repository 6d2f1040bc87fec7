"""Who is answered: this computer alone, or who has the token; and nobody from another page."""

import sys
import urllib.request

import pytest

from tests.app.conftest import PATIENCE, User, running

TOKEN = "a-token-of-many-characters"


@pytest.fixture(scope="module")
def guarded():
    with running(host="0.0.0.0", token=TOKEN) as (port, _):
        yield port


@pytest.mark.parametrize("name", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""])
def test_a_foreign_name_of_this_computer_gets_nothing(user, name):
    status, _, content = user.ask("GET", "/", Host=name)
    assert status == 400 and b"localhost" in content


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1:8765", "[::1]:9"])
def test_its_own_names_are_answered(user, name):
    assert user.ask("GET", "/", Host=name)[0] == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1:1"])
def test_other_pages_change_nothing(user, save, origin):
    id = user.upload(save())
    for method, path in (("DELETE", f"/api/pictures/{id}"), ("POST", "/api/cancel")):
        status, _, content = user.ask(method, path, Origin=origin)
        assert status == 403 and b"page itself" in content
    assert user.picture(id)


def test_the_page_itself_may(user, server, save):
    id = user.upload(save())
    own = f"http://127.0.0.1:{server[0]}"
    assert user.ask("DELETE", f"/api/pictures/{id}", Origin=own)[0] == 200
    assert user.state()["pictures"] == []


def test_the_page_may_fetch_nothing_from_elsewhere(user):
    _, headers, _ = user.ask("GET", "/")
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "http" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "HttpOnly" in headers["Set-Cookie"] and "SameSite=lax" in headers["Set-Cookie"]
    assert headers["Server"] is None


@pytest.mark.parametrize(
    "path", ["/", "/?token=", "/?token=wrong", "/?token=%C3%A9", "/static/page.js"]
)
def test_without_the_token_there_is_nothing(guarded, path):
    user = User(guarded, path)
    assert user.status == 401 and b"token" in user.page
    assert user.cookies == {}
    status, answer = user.json("GET", "/api/state")
    assert status == 401 and "token" in answer["error"]


def test_a_wrong_cookie_opens_nothing(guarded):
    user = User(guarded)
    user.cookies[f"cbsn_token_{guarded}"] = "é" * 20
    assert user.ask("GET", "/", Cookie=f"cbsn_token_{guarded}=wrong")[0] == 401


def test_the_token_opens_the_page_and_leaves_the_address(guarded):
    user = User(guarded, f"/?token={TOKEN}")
    assert user.status == 303
    status, _, content = user.ask("GET", "/")
    assert status == 200 and b"Denoise pictures" in content
    assert TOKEN.encode() not in content
    assert user.state()["pictures"] == []
    # Other computers have other names for it.
    assert user.ask("GET", "/", Host="server.example")[0] == 200


@pytest.mark.parametrize("token", ["abc+def/ghi==0123456789", "a token; & of #100 % läßt—"])
def test_any_token_opens_the_page_by_the_printed_address(token):
    with running(host="0.0.0.0", token=token) as (port, server):
        address = server.addresses[0]
        user = User(port, address.removeprefix(f"http://127.0.0.1:{port}"))
        assert user.status == 303
        assert user.ask("GET", "/")[0] == 200


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has 127.0.0.1 alone")
def test_another_number_of_this_computer_is_answered_where_it_was_asked_for():
    with running(host="127.0.0.2") as (port, server):
        assert server.addresses == [f"http://127.0.0.2:{port}/"]
        with urllib.request.urlopen(server.addresses[0], timeout=PATIENCE) as answer:
            assert answer.status == 200


def test_monitors_need_no_token(guarded):
    user = User(guarded, "/health")
    assert user.status == 200 and user.page == b"ok\n"


def test_a_token_is_made_up_for_others():
    with running(host="0.0.0.0") as (port, server):
        token = server.options.token
        assert len(token) >= 32
        here, elsewhere = server.addresses
        assert here == f"http://127.0.0.1:{port}/?token={token}"
        assert elsewhere.endswith(f":{port}/?token={token}") and elsewhere != here
        assert User(port).status == 401
    with running() as (port, server):
        assert server.options.token is None
        assert server.addresses == [f"http://127.0.0.1:{port}/"]
