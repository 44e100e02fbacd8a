"""Who asks, and what they may.

- Who it is: `forwarded` (the client's address, scheme and host, as far as whoever says so is trusted),
  `claims` (whose a token is, in its own words).
- From where: `sites` (our names, and whose pages may open a WebSocket).
- What they may: `authorization` decides by the grants that it keeps (`grant`), and by `questions` to the VISA
  API: one at a time for each token (`flights`), and not too many at once (`turns`).
- `verification`, where it is wanted, looks first whether a token is signed (`key_set`).

Here belongs whatever can refuse a request for who sends it; the token itself is found by `http.credentials`.
"""
