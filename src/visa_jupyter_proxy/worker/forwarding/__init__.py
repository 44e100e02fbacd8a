"""What of a message goes on to the other side, and as what (RFC 9110 7.6).

Here belongs what decides about the content of a message that is passed on: `fields` chooses and makes the
fields, `references` maps the addresses in them, `hosts` reads the names in those as browsers do. The message
that came is never modified; nothing here knows a loop, a socket or a clock.
"""
