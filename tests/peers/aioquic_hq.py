"""hq-interop over aioquic: a server and a client. See mod.rs for the role (JSON, first argument) and the lines."""

import asyncio
import hashlib
import json
import os
import sys
from pathlib import Path

from aioquic.asyncio import QuicConnectionProtocol, connect, serve
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, DatagramFrameReceived, HandshakeCompleted, StreamDataReceived, StreamReset

WINDOW = 64 << 20
REFUSED = 0x104


def say(*words):
    print(*words, flush=True)


def split(address):
    """Host and port of `1.2.3.4:5` or `[::1]:5`."""
    host, port = address.rsplit(":", 1)
    return host.strip("[]"), int(port)


def configuration(role, **kwargs):
    log = open(role["keylog"], "a", buffering=1) if role["keylog"] else None
    if role["versions"]:
        kwargs["supported_versions"] = role["versions"]
        kwargs["original_version"] = role.get("first_version")
    return QuicConfiguration(
        alpn_protocols=[role["alpn"]],
        idle_timeout=role["idle_secs"],
        max_data=WINDOW,
        max_stream_data=WINDOW,
        max_datagram_size=min(role["mtu"], 1500) - 48,
        secrets_log_file=log,
        max_datagram_frame_size=65536,
        **kwargs,
    )


class Server(QuicConnectionProtocol):
    root = None
    count = 0

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.requests = {}

    def quic_event_received(self, event):
        if isinstance(event, HandshakeCompleted):
            Server.count += 1
            say("connection", Server.count)
        elif isinstance(event, StreamDataReceived):
            request = self.requests.setdefault(event.stream_id, bytearray())
            request += event.data
            if event.end_stream:
                del self.requests[event.stream_id]
                self.answer(event.stream_id, request)
        elif isinstance(event, DatagramFrameReceived):
            self._quic.send_datagram_frame(event.data)
            self.transmit()
        elif isinstance(event, ConnectionTerminated):
            print("connection:", event.error_code, event.reason_phrase, file=sys.stderr)

    def answer(self, stream_id, request):
        try:
            line = request.decode()
            if not line.startswith("GET /") or not line.endswith("\r\n"):
                raise ValueError(f"not a GET line: {line!r}")
            path = line[4:-2]
            say("request", path)
            file = (self.root / path[1:]).resolve()
            if not file.is_relative_to(self.root):
                raise ValueError(f"{path} leaves the root")
            body = file.read_bytes()
        except (OSError, ValueError) as error:
            print("request:", error, file=sys.stderr)
            self._quic.reset_stream(stream_id, REFUSED)
        else:
            self._quic.send_stream_data(stream_id, body, end_stream=True)


async def run_server(role):
    if role["misbehave"]:
        raise ValueError("this peer cannot misbehave")
    Server.root = Path(role["root"]).resolve()
    config = configuration(role, is_client=False)
    config.load_cert_chain(role["cert"], role["key"])
    host, port = split(role["listen"])
    tickets = {}
    early = role["early_data"]
    await serve(
        host,
        port,
        configuration=config,
        create_protocol=Server,
        retry=role["retry"],
        session_ticket_fetcher=(lambda label: tickets.pop(label, None)) if early else None,
        session_ticket_handler=(lambda ticket: tickets.update({ticket.ticket: ticket})) if early else None,
    )
    say("ready", role["listen"])
    await asyncio.Event().wait()


class Download:
    def __init__(self, path, directory):
        self.path = path
        self.file = open(os.path.join(directory, path.rsplit("/", 1)[1] or "index"), "wb")
        self.hash = hashlib.sha256()
        self.size = 0
        self.done = asyncio.get_running_loop().create_future()

    def data(self, data, end):
        if data and not self.size:
            say("receiving", self.path)
        self.file.write(data)
        self.hash.update(data)
        self.size += len(data)
        if end:
            self.finish(True, self.size, self.hash.hexdigest())

    def finish(self, good, *words):
        if not self.done.done():
            self.file.close()
            say("ok" if good else "failed", self.path, *words)
            self.done.set_result(good)


class Client(QuicConnectionProtocol):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.downloads = {}

    def quic_event_received(self, event):
        if isinstance(event, StreamDataReceived) and event.stream_id in self.downloads:
            self.downloads[event.stream_id].data(event.data, event.end_stream)
        elif isinstance(event, StreamReset) and event.stream_id in self.downloads:
            self.downloads[event.stream_id].finish(False, "reset", event.error_code)
        elif isinstance(event, ConnectionTerminated):
            for download in self.downloads.values():
                download.finish(False, "connection closed", event.error_code, event.reason_phrase)

    def get(self, path, directory):
        stream_id = self._quic.get_next_available_stream_id()
        download = self.downloads[stream_id] = Download(path, directory)
        self._quic.send_stream_data(stream_id, f"GET {path}\r\n".encode(), end_stream=True)
        return download.done


async def run_client(role):
    config = configuration(role, is_client=True)
    config.load_verify_locations(role["ca"])
    paths = role["paths"]
    if not role["returns"]:
        return await download(role, config, paths)
    code = await download(role, config, paths[:1])
    say("returns")
    while not os.path.exists(role["returns"]):
        await asyncio.sleep(0.02)
    if config.session_ticket is None:
        raise ValueError("no session ticket")
    return code or await download(role, config, paths[1:], wait_connected=False)


async def download(role, config, paths, wait_connected=True):
    host, port = split(role["remote"])

    def keep(ticket):
        config.session_ticket = ticket

    async with connect(
        host,
        port,
        configuration=config,
        create_protocol=Client,
        session_ticket_handler=keep,
        wait_connected=wait_connected,
    ) as client:
        say("connected")
        done = [client.get(path, role["out"]) for path in paths]
        client.transmit()
        results = await asyncio.gather(*done)
        if not wait_connected:
            say("early", str(client._quic.tls.early_data_accepted).lower())
    return 0 if all(results) else 1


def main():
    role = json.loads(sys.argv[1])
    run = {"server": run_server, "client": run_client}[role["role"]]
    try:
        return asyncio.run(run(role))
    except (OSError, ValueError) as error:
        print("error:", repr(error), file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
