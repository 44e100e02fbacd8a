"""Where the access token is found, and how it is kept from instances (contract section 3)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.costs import instructions
from support.messages import request
from visa_jupyter_proxy.errors import NoToken
from visa_jupyter_proxy.worker.http.credentials import (
    LONGEST_TOKEN,
    Credentials,
    sets_token,
    without_bearer,
    without_token,
)
from visa_jupyter_proxy.worker.http.request import Request


def _token(made: Request) -> str:
    return made.credentials.token.text


class TestFinding:
    """A Bearer value decides alone, otherwise the cookie does."""

    @pytest.mark.parametrize(
        "field",
        [
            b"Authorization: Bearer T",
            b"Authorization: bEaReR T",
            b"Authorization: Bearer    T",
            b"Authorization: Bearer T \t",
            b"Cookie: access_token=T",
            b"Cookie: a=1; access_token=T; b=2",
            b"Cookie: a=1;access_token=T;b=2",
            b"Cookie:  access_token = T ",
            b"Cookie: access_token=T; access_token=T",
        ],
    )
    def test_122_a_token(self, field: bytes) -> None:
        """Without any white space around it."""
        assert "T" == _token(request(field))

    @pytest.mark.parametrize(
        "fields",
        [
            (),
            *(
                (b"Authorization: " + value,)
                for value in (b"Bearer", b"Bearer ", b"Bearer\tT", b"Bearer T, Bearer U")
            ),
            *(
                (b"Authorization: " + value,)
                for value in (b"Bearer T x", b"Bearer,T", b"Bearer \xc3\xa9", b"Bearer T\xa0")
            ),
            *(
                (b"Authorization: " + value,)
                for value in (b"Bearer =", b"Bearer T=x", b'Bearer "T"', b"Bearer  \tT")
            ),
            (b"Authorization: Bearer " + b"a" * (LONGEST_TOKEN + 1),),
            *(
                (b"Cookie: " + value,)
                for value in (b"access_token=", b"access_token", b"=T", b";;;", b"access_tokens=T")
            ),
            *(
                (b"Cookie: " + value,)
                for value in (b'access_token="T"', b"access_token=a b", b"ACCESS_TOKEN=T")
            ),
            *(
                (b"Cookie: " + value,)
                for value in (b"access_token=a%0d%0aX-Evil:%201.<p>.sig", b"xaccess_token=T")
            ),
            (b"Cookie: access_token=T; access_token=U",),
            (b"Cookie: access_token=T", b"Cookie: access_token=U"),
            (b"Cookie: access_token=T; access_token",),
            (b"Authorization: Bearer", b"Cookie: access_token=T"),
            (b"Authorization: Bearer a b", b"Cookie: access_token=T"),
        ],
        ids=lambda fields: repr(fields)[:50],
    )
    def test_113_122_to_129_no_token(self, fields: tuple[bytes, ...]) -> None:
        """None, one that has not the form of one, or several that differ."""
        with pytest.raises(NoToken):
            _token(request(*fields))

    def test_128_no_token_in_the_query(self) -> None:
        """It would stand in every log."""
        with pytest.raises(NoToken):
            _token(request(line=b"GET /jupyter/12/x?token=T&access_token=T HTTP/1.1"))

    def test_120_the_bearer_value_decides_alone(self) -> None:
        """Good or bad."""
        both = request(b"Authorization: Bearer T", b"Cookie: access_token=U")
        assert ("T", False) == (_token(both), both.credentials.is_cookie)

    @pytest.mark.parametrize(
        "value", [b"token abc", b"Basic dTpw", b"Bearers T", b"Bearer.T x", b"x Bearer T"]
    )
    def test_92_another_scheme_is_the_application_s(self, value: bytes) -> None:
        """Then the cookie counts, and the field goes on."""
        both = request(b"Authorization: " + value, b"Cookie: access_token=T")
        assert ("T", True) == (_token(both), both.credentials.is_cookie)
        assert [value] == without_bearer([value])

    @pytest.mark.parametrize("token", [b"T", b"T=", b"T==", b"U", b"a.b-c_d~e+f/g=", b"a" * LONGEST_TOKEN])
    def test_119_a_token_is_what_came(self, token: bytes) -> None:
        """Not decoded, padded or compared with anything."""
        assert token.decode() == _token(request(b"Authorization: Bearer " + token))

    def test_123_the_same_token_in_two_cookie_fields(self) -> None:
        """Nothing depends on the order."""
        assert "T" == _token(request(b"Cookie: access_token=T", b"Cookie: a=1; access_token=T"))


class TestTakingOut:
    """Instances get neither form of the token."""

    @pytest.mark.parametrize(
        ("cookie", "kept"),
        [
            (b"a=1; access_token=T; b=2", [b"a=1; b=2"]),
            (b"access_token=T; b=2", [b"b=2"]),
            (b"a=1; access_token=T", [b"a=1"]),
            (b"a=1;access_token=T;b=2", [b"a=1;b=2"]),
            (b"access_token=T", []),
            (b"access_token=T;", []),
            (b"access_token=T; access_token=U", []),
            (b"a=1; access_token; b=2", [b"a=1; b=2"]),
            (b'a=1;  b = "x;y" ;c', [b'a=1;  b = "x;y" ;c']),
            (b"xaccess_token=T; a=access_token", [b"xaccess_token=T; a=access_token"]),
        ],
    )
    def test_89_90_every_other_byte_stays(self, cookie: bytes, kept: list[bytes]) -> None:
        """And a field without anything left is none."""
        assert kept == without_token([cookie])

    def test_90_two_fields(self) -> None:
        """Each for itself."""
        assert [b"a=1", b"b=2"] == without_token([b"a=1", b"access_token=T", b"access_token=T; b=2"])

    @given(
        st.lists(st.sampled_from([b"access_token=TOKEN", b" access_token = TOKEN ", b"a=1", b"", b" ", b"x"]))
    )
    def test_89_whatever_was_found_is_taken_out(self, pairs: list[bytes]) -> None:
        """Nothing of it is left, and nothing else is gone."""
        left = b";".join(without_token([b";".join(pairs)]))
        assert b"TOKEN" not in left
        assert sum(b"a=1" in pair for pair in pairs) == left.count(b"a=1")

    def test_a_field_of_many_pairs_costs_no_more(self) -> None:
        """A head of 32 KiB may have as many semicolons, and whoever sends it need not be known."""

        def cost(pairs: int) -> int:
            shown = Credentials([], [b"access_token=T" + b";" * pairs])
            assert b";" * (pairs - 1) == shown.stripped_lines[0][len("Cookie: ") : -2]
            return instructions(lambda: shown.token)

        assert cost(10) == cost(30_000)

    @pytest.mark.parametrize(
        "value", [b"Bearer T", b"bearer", b"BEARER  T", b"Bearer\tT", b"Bearer T, token x"]
    )
    def test_89_bearer_values_do_not_go_on(self, value: bytes) -> None:
        """Not even malformed ones."""
        assert [] == without_bearer([value])

    @pytest.mark.parametrize(
        "value",
        [
            b"access_token=evil; Path=/",
            b"access_token=",
            b"access_token",
            b" access_token =x",
            b"=access_token=evil",
            b"access_token=e; Domain=visa.test",
            b"==access_token=x",
            b"=access_token",
            b"\taccess_token=x",
        ],
    )
    def test_95_instances_do_not_set_it(self, value: bytes) -> None:
        """In no spelling that a browser takes for it, the nameless cookie included."""
        assert sets_token(value)

    @pytest.mark.parametrize(
        "value", [b"a=access_token", b"xaccess_token=1", b"a=1; access_token=2", b"", b"=a"]
    )
    def test_95_other_cookies_are_theirs(self, value: bytes) -> None:
        """Whatever their attributes and values are."""
        assert not sets_token(value)
