"""The wing that moves bytes: what a worker process is made of.

From the bottom up; each imports only what stands above it here:

- vocabulary: `http1` (heads), `bodies`, `framing` (messages out of a stream), `credentials`, `forwarded`
  (who the client is), `grant`, `sites`, `kernels`, `fields` (what goes on), `heads` (what we add to an
  answer), `pages`, `sockets`, `ports`;
- machines: `exchange` (one request and its response), `tunnel` (two connections tied together);
- edges: `upstream` (an instance's connection), `pool` (of those),
  `authorization` (grants), `records` (the log);
- `proxy`: the straight line that every request takes;
- `downstream`: a client's connection, which starts that line;
- `worker`: all of it tied together, from the first message of control to the last connection.
"""
