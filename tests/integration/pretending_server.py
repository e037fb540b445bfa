"""A server that lets everybody in, claims to be of some version, and answers nothing."""

import pathlib
import socket
import socketserver
import struct
import threading


def message(kind, body):
    return kind + struct.pack("!I", len(body) + 4) + body


class PretendingServer:
    """Listens where a PostgreSQL with that socket directory and port would, while it is entered."""

    def __init__(self, socket_directory, port, version):
        self.path = pathlib.Path(socket_directory) / f".s.PGSQL.{port}"
        self.version = version
        self.statements = []

    def __enter__(self):
        outer = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self):
                outer.converse(self.request)

        self.server = socketserver.ThreadingUnixStreamServer(str(self.path), Handler)
        self.server.daemon_threads = True
        self.path.chmod(0o777)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05})
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()
        self.path.unlink(missing_ok=True)

    def converse(self, connection):
        self.read_exactly(connection, self.length(connection))
        welcome = message(b"R", struct.pack("!I", 0))
        for name, value in (("server_version", self.version), ("client_encoding", "UTF8")):
            welcome += message(b"S", name.encode() + b"\0" + value.encode() + b"\0")
        welcome += message(b"K", struct.pack("!II", 1, 1)) + message(b"Z", b"I")
        connection.sendall(welcome)
        while kind := self.read_exactly(connection, 1):
            body = self.read_exactly(connection, self.length(connection))
            if kind == b"X":
                return
            self.statements.append((kind, body))

    def length(self, connection):
        size = self.read_exactly(connection, 4)
        return struct.unpack("!I", size)[0] - 4 if size else 0

    @staticmethod
    def read_exactly(connection, count):
        """Nothing once the other side has gone."""
        data = b""
        while len(data) < count:
            try:
                piece = connection.recv(count - len(data))
            except (OSError, socket.timeout):
                return b""
            if not piece:
                return b""
            data += piece
        return data
