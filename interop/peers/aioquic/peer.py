"""hq-interop over aioquic. See ../README.md."""

import asyncio
import os
import sys
from pathlib import Path

from aioquic.asyncio import QuicConnectionProtocol, connect, serve
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, DatagramFrameReceived, StreamDataReceived, StreamReset
from aioquic.quic.logger import QuicFileLogger
from aioquic.quic.packet import QuicProtocolVersion
from aioquic.tls import CipherSuite

CASES = ["transfer", "reset", "multiconnect", "chacha20", "retry", "resumption", "zerortt", "keyupdate", "v2", "stopsending",
         "migration", "datagrams"]
WINDOW = 16 << 20
REFUSED = 0x104
ENOUGH = 50_000
DATAGRAMS = 200
CASE = os.environ["TESTCASE"]


def say(*words):
    print(*words, flush=True)


def split(address):
    """Host and port of `1.2.3.4:5` or `[::1]:5`."""
    host, port = address.rsplit(":", 1)
    return host.strip("[]"), int(port)


def configuration(**kwargs):
    path, logs = os.environ.get("SSLKEYLOGFILE"), os.environ.get("QLOGDIR")
    config = QuicConfiguration(
        alpn_protocols=[os.environ.get("ALPN") or "hq-interop"],
        idle_timeout=30,
        max_data=WINDOW,
        max_stream_data=WINDOW,
        max_datagram_size=min(int(os.environ.get("MTU", "1500")), 1500) - 48,
        secrets_log_file=open(path, "a", buffering=1) if path else None,
        quic_logger=QuicFileLogger(logs) if logs else None,
        max_datagram_frame_size=65536 if CASE == "datagrams" else None,
        **kwargs,
    )
    if CASE == "chacha20":
        config.cipher_suites = [CipherSuite.CHACHA20_POLY1305_SHA256]
    if CASE == "v2":
        config.supported_versions = [QuicProtocolVersion.VERSION_2, QuicProtocolVersion.VERSION_1]
        config.original_version = QuicProtocolVersion.VERSION_1
    return config


class Server(QuicConnectionProtocol):
    root = Path(os.environ.get("WWW", ".")).resolve()

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.requests = {}

    def quic_event_received(self, event):
        if isinstance(event, StreamDataReceived):
            request = self.requests.setdefault(event.stream_id, bytearray())
            request += event.data
            if event.end_stream:
                del self.requests[event.stream_id]
                self.answer(event.stream_id, request)
        elif isinstance(event, DatagramFrameReceived):
            self._quic.send_datagram_frame(event.data)
        elif isinstance(event, ConnectionTerminated):
            say("closed", event.error_code, event.frame_type, event.reason_phrase)

    def answer(self, stream_id, request):
        try:
            line = request.decode()
            if not line.startswith("GET /"):
                raise ValueError(f"not a GET line: {line!r}")
            file = (self.root / line[5:].rstrip()).resolve()
            if not file.is_relative_to(self.root):
                raise ValueError(f"{line} leaves the root")
            body = file.read_bytes()
        except (OSError, ValueError) as error:
            print("request:", error, file=sys.stderr)
            self._quic.reset_stream(stream_id, REFUSED)
        else:
            self._quic.send_stream_data(stream_id, body, end_stream=True)


class Tickets(dict):
    """Tickets of a server, each of which is used once."""

    def add(self, ticket):
        self[ticket.ticket] = ticket

    def take(self, label):
        return self.pop(label, None)


async def run_server():
    config = configuration(is_client=False)
    config.load_cert_chain(os.environ["CERT"], os.environ["KEY"])
    host, port = split(os.environ["LISTEN"])
    tickets = Tickets()
    await serve(
        host,
        port,
        configuration=config,
        create_protocol=Server,
        retry=CASE == "retry",
        session_ticket_fetcher=tickets.take,
        session_ticket_handler=tickets.add,
    )
    say("ready")
    await asyncio.Event().wait()


class Client(QuicConnectionProtocol):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.bodies = {}
        self.done = {}
        self.missing = set()

    def quic_event_received(self, event):
        if isinstance(event, StreamDataReceived) and event.stream_id in self.bodies:
            path, body = self.bodies[event.stream_id]
            body += event.data
            if CASE == "stopsending" and event.stream_id == 0 and len(body) >= ENOUGH:
                self._quic.stop_stream(0, 0x10)
                self.finish(0, True)
            elif event.end_stream:
                target = Path(os.environ["DOWNLOADS"]) / (path.rsplit("/", 1)[1] or "index")
                target.write_bytes(body)
                self.finish(event.stream_id, True)
        elif isinstance(event, DatagramFrameReceived):
            self.missing.remove(event.data)
        elif isinstance(event, StreamReset) and event.stream_id in self.bodies:
            say("failed: reset", event.error_code)
            self.finish(event.stream_id, False)
        elif isinstance(event, ConnectionTerminated):
            for stream_id in list(self.bodies):
                say("failed: closed", event.error_code, event.frame_type, event.reason_phrase)
                self.finish(stream_id, False)

    def finish(self, stream_id, good):
        del self.bodies[stream_id]
        if not self.done[stream_id].done():
            self.done[stream_id].set_result(good)

    def get(self, path):
        stream_id = self._quic.get_next_available_stream_id()
        self.bodies[stream_id] = (path, bytearray())
        self.done[stream_id] = asyncio.get_running_loop().create_future()
        self._quic.send_stream_data(stream_id, f"GET {path}\r\n".encode(), end_stream=True)
        return self.done[stream_id]


async def move(client):
    """Goes on with another port and another connection ID."""
    await asyncio.sleep(0.3)
    client._quic.change_connection_id()
    old = client._transport
    loop = asyncio.get_running_loop()
    _, _ = await loop.create_datagram_endpoint(lambda: client, local_addr=("::", 0))
    old.close()
    client.transmit()


async def bounce(client):
    """Sends datagrams, and waits until they come back."""
    for n in range(DATAGRAMS):
        data = n.to_bytes(2, "big") + bytes([n]) * (14 + n * 37 % 1000)
        client.missing.add(data)
        client._quic.send_datagram_frame(data)
        client.transmit()
        await asyncio.sleep(0.002)
    for _ in range(100):
        if not client.missing:
            break
        await asyncio.sleep(0.01)
    say("returned", DATAGRAMS - len(client.missing))
    return len(client.missing) < DATAGRAMS // 2


async def run_client():
    requests = [url.removeprefix("https://").split("/", 1) for url in os.environ["REQUESTS"].split()]
    host, port = split(requests[0][0])
    paths = ["/" + path for _, path in requests]
    resumes = CASE in ("resumption", "zerortt")
    if CASE == "multiconnect":
        connections = [[path] for path in paths]
    elif resumes:
        connections = [paths[:1], paths[1:]]
    else:
        connections = [paths]
    ticket, good = None, True

    def keep(new):
        nonlocal ticket
        ticket = new

    for number, paths in enumerate(connections):
        config = configuration(is_client=True, session_ticket=ticket)
        config.load_verify_locations(os.environ["CA"])
        early = CASE == "zerortt" and number > 0
        client = connect(
            host,
            port,
            configuration=config,
            create_protocol=Client,
            session_ticket_handler=keep,
            wait_connected=not early,
        )
        async with client as client:
            if CASE == "datagrams":
                good &= await bounce(client)
                break
            if CASE == "stopsending":
                first = client.get(paths.pop(0))
                client.transmit()
                await first
            done = [client.get(path) for path in paths]
            client.transmit()
            if CASE == "keyupdate":
                await asyncio.sleep(0.1)
                client.request_key_update()
            if CASE == "migration":
                await move(client)
            good &= all(await asyncio.gather(*done))
            if resumes and number == 0:
                await asyncio.sleep(0.2)
            elif resumes:
                say("resumed", client._quic.tls.session_resumed, "early", client._quic.tls.early_data_accepted)
    return 0 if good else 1


def main():
    if CASE not in CASES:
        return 127
    try:
        return asyncio.run(run_server() if os.environ["ROLE"] == "server" else run_client()) or 0
    except (OSError, ValueError) as error:
        print("error:", repr(error), file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
