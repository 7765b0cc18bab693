"""Logs in, renews and is refused with authlib: TOKEN_URL USER_URL LOGOUT_URL PASSWORD."""
import sys

from authlib.integrations.base_client import OAuthError
from authlib.integrations.requests_client import OAuth2Session

token_url, user_url, logout_url, password = sys.argv[1:]


def refused(code, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except OAuthError as e:
        assert e.error == code and e.description, e
    else:
        raise AssertionError(f"not refused with {code}")


for style in "client_secret_basic", "client_secret_post", "none":
    session = OAuth2Session(
        "an app", "not needed", token_endpoint=token_url, token_endpoint_auth_method=style,
    )
    first = dict(session.fetch_token(username="ann@example.org", password=password))
    assert session.get(user_url).json()["email"] == "ann@example.org"

    session.token = {**first, "expires_at": 1}  # it renews by itself
    assert session.get(user_url).json()["email"] == "ann@example.org"
    second = dict(session.token)
    assert second["access_token"] != first["access_token"]
    assert second["refresh_token"] != first["refresh_token"]
    third = dict(session.refresh_token(token_url))
    assert third["access_token"] != second["access_token"]

    refused("invalid_grant", session.fetch_token, username="ann@example.org", password="the wrong one")
    session.token = third
    assert session.post(logout_url, data={"refresh_token": third["refresh_token"]}).status_code == 200
    refused("invalid_grant", session.refresh_token, token_url, refresh_token=third["refresh_token"])
    refused("invalid_grant", session.refresh_token, token_url, refresh_token="none of ours")
    refused("unsupported_grant_type", session.fetch_token, grant_type="client_credentials")
print("done")
