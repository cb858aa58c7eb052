"""The soak's network passes data on, and cuts, stalls and slows links."""

import socket
import threading
from collections.abc import Iterator

import pytest

from tests.engines import PATIENCE, wait_until
from tests.soak.network import Network


@pytest.fixture
def echo() -> Iterator[int]:
    """A server that sends back what it gets; its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return  # closed
                threading.Thread(target=send_back, args=[connection], daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def send_back(connection: socket.socket) -> None:
    with connection:
        while data := connection.recv(1000):
            connection.sendall(data)


@pytest.fixture
def network(echo: int) -> Iterator[Network]:
    with Network() as running:
        running.add("echo", echo)
        yield running


def dial(network: Network) -> socket.socket:
    return socket.create_connection(("127.0.0.1", network.links["echo"].port), timeout=PATIENCE)


def comes_back(connection: socket.socket, text: bytes = b"hello") -> bool:
    connection.sendall(text)
    return connection.recv(1000) == text


def is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1000) == b""
    except ConnectionError:
        return True


def test_link_passes_data_and_ends_with_either_side(network: Network) -> None:
    with dial(network) as connection:
        assert comes_back(connection)
        assert network.open_connections() == {"echo": 1}
    wait_until(lambda: network.open_connections() == {"echo": 0})


def test_cut_closes_connections_and_refuses_new_ones(network: Network) -> None:
    with dial(network) as connection:
        assert comes_back(connection)
        network.cut("echo")
        assert is_closed(connection)
    with dial(network) as refused:
        assert is_closed(refused)
    network.restore("echo")
    with dial(network) as again:
        assert comes_back(again)


def test_stall_holds_data_back_until_it_ends(network: Network) -> None:
    with dial(network) as connection:
        assert comes_back(connection)
        network.stall("echo")
        connection.sendall(b"late")
        connection.settimeout(0.5)
        with pytest.raises(TimeoutError):
            connection.recv(1000)
        network.restore("echo")
        connection.settimeout(PATIENCE)
        assert connection.recv(1000) == b"late"


def test_slow_link_passes_everything_in_order(network: Network) -> None:
    network.slow("echo", 0.05)
    with dial(network) as connection:
        assert all(comes_back(connection, bytes([number])) for number in range(5))


def test_link_to_nobody_closes(network: Network, tmp_path: object) -> None:
    network.add("nobody", f"{tmp_path}/no-socket")
    port = network.links["nobody"].port
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        assert is_closed(connection)
