"""An ssh `ProxyCommand`: standard input and output as a connection to a port of this machine."""

from __future__ import annotations

import os
import socket
import sys
import threading


def main() -> None:
    """Runs as `python through_port.py PORT`, until either side closes."""
    with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as connection:

        def outwards() -> None:
            while given := os.read(0, 65536):
                connection.sendall(given)
            connection.shutdown(socket.SHUT_WR)

        threading.Thread(target=outwards, daemon=True).start()
        while received := connection.recv(65536):
            os.write(1, received)


if __name__ == "__main__":
    main()
