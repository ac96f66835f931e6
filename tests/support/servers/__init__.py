"""Real servers on loopback, each a context manager on a free port.

`nginx.py` serves folders, plain and over TLS; `s3.py` runs moto's S3 server, which enforces
If-Match, and nanio, which ignores it; `proxy.py` puts 15 ms and 50 MB/s between a client and any of
them; `faulty.py` serves files with faults that a seed chooses. Those of others run in processes of
their own, started by `process.py`, ended by process id, and ended by the kernel if the tests are
killed. The fixtures `nginx`, `moto` and `nanio` (tests/conftest.py) start each once a session. The
hub is in `tests.support.hub`.
"""
