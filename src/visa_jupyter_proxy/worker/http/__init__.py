"""Bytes to messages and back: HTTP/1.1 (RFC 9110, 9112) and the frames of WebSockets (RFC 6455).

Here belongs what a standard says of the form of messages, as functions and machines that are fed bytes in
any pieces. Nothing here knows a loop, a socket or a clock, what a route is, or what VISA has granted.

From the bottom up: `lines` (one field line), `credentials` (the token in them), `sections` (the fields of a
head together), `message`, which `request` and `response` have in common, and `bodies`, `websocket`, `heads`
(what we add to the head of an answer). `framing` finds messages in a stream: `request_reader` those of a
client, `response_reader` that of an instance.
"""
