"""Asks one question through c-ares: cares.py PORT NAME TYPE.

It prints what the callback was given, one record a line or the error's name.
"""
import select
import sys

import pycares

port, name, kind = sys.argv[1:]


def done(result, error):
    if error is not None:
        print(pycares.errno.errorcode[error])
        return
    for rr in result:
        print(" ".join(str(getattr(rr, f)) for f in ("host", "port") if hasattr(rr, f)))


channel = pycares.Channel(servers=["127.0.0.1"], udp_port=int(port), tcp_port=int(port), timeout=5, tries=2)
channel.query(name, getattr(pycares, "QUERY_TYPE_" + kind), done)
while True:
    readers, writers = channel.getsock()
    if not readers and not writers:
        break
    ready = select.select(readers, writers, [], channel.timeout())
    for fd in ready[0] + ready[1]:
        channel.process_fd(fd if fd in ready[0] else pycares.ARES_SOCKET_BAD, fd if fd in ready[1] else pycares.ARES_SOCKET_BAD)
    if not ready[0] and not ready[1]:
        channel.process_fd(pycares.ARES_SOCKET_BAD, pycares.ARES_SOCKET_BAD)
