"""Logs in, renews and is refused with requests-oauthlib: TOKEN_URL USER_URL LOGOUT_URL PASSWORD."""
import sys

from oauthlib.oauth2 import InvalidGrantError, LegacyApplicationClient, OAuth2Error
from requests_oauthlib import OAuth2Session

token_url, user_url, logout_url, password = sys.argv[1:]


def refused(kind, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except kind as e:
        assert e.description, e
    else:
        raise AssertionError(f"not refused with {kind}")


saved = []
session = OAuth2Session(
    client=LegacyApplicationClient("an app"), auto_refresh_url=token_url, token_updater=saved.append,
)
first = dict(session.fetch_token(token_url, username="ann@example.org", password=password))
assert session.get(user_url).json()["email"] == "ann@example.org"

session.token = {**first, "expires_in": -1, "expires_at": 1}  # it renews by itself
assert session.get(user_url, client_id="an app").json()["email"] == "ann@example.org"
(second,) = saved
assert second["access_token"] != first["access_token"]
assert second["refresh_token"] != first["refresh_token"]
third = dict(session.refresh_token(token_url))
assert third["access_token"] != second["access_token"]

refused(InvalidGrantError, session.fetch_token, token_url, username="ann@example.org", password="the wrong one")
session.token = third
assert session.post(logout_url, data={"refresh_token": third["refresh_token"]}).status_code == 200
refused(InvalidGrantError, session.refresh_token, token_url, refresh_token=third["refresh_token"])
refused(InvalidGrantError, session.refresh_token, token_url, refresh_token="none of ours")
refused(OAuth2Error, session.refresh_token, token_url, refresh_token=" ")
print("done")
