"""The wire: real sockets against the real proxy."""
