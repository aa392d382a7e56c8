"""Access control: CURVE keys (RFC 26) for other machines and for commands, a password (PLAIN, RFC 24) for images.

A socket without either accepts all programs of this machine; it cannot be opened on an address that other machines
reach. libzmq asks this process for every client whether it may connect (ZAP, RFC 27).

A key folder holds `server.key_secret` and `client.key_secret` (secret), `server.key` and `client.key` (public), and
`authorised/`, the public keys of the clients that may connect. A machine that only connects needs `server.key` and
its own `client.key_secret`.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path

import zmq
import zmq.auth

from stream.errors import ConfigurationError, LinkError, OutputError
from stream.sockets import LinkAddress, Security

SERVER, CLIENT, AUTHORISED = "server", "client", "authorised"
HOW_TO_MAKE_KEYS = "liveptv keys make keys"
USER = b"liveptv"


def check_bind(address: str, security: Security | None) -> LinkAddress:
    """Parse an address to bind or to connect to.

    Raises `ConfigurationError` if other machines can reach it and there are no keys.
    """
    where = LinkAddress.parse(address)
    if not where.is_local and security is None:
        raise ConfigurationError(
            f"other machines can reach {address}, which needs CURVE keys; use 127.0.0.1, or make keys with "
            f"`{HOW_TO_MAKE_KEYS}` and give their folder (session.keys, or --keys)"
        )
    return where


@dataclass(frozen=True, slots=True, repr=False)
class CurveKeys:
    """The keys of one host, 40 characters each (Z85); empty where this host does not have them.

    `authorised` are the public keys of the clients that may connect to our server.
    """

    server_public: bytes
    server_secret: bytes = b""
    client_public: bytes = b""
    client_secret: bytes = b""
    authorised: frozenset[bytes] = frozenset()

    def check_server(self) -> None:
        """Raise `ConfigurationError` unless sockets can be bound with these keys."""
        if not self.server_secret:
            raise ConfigurationError(
                "server.key_secret is missing in the key folder; without it this machine can only connect"
            )

    def apply_server(self, socket: zmq.Socket[bytes]) -> None:
        """Prepare a socket that will bind: encrypted, for authorised clients only.

        The gatekeeper's thread ends with the socket's context. Raises `ConfigurationError` without the
        server's secret key, `LinkError` if the context has a gatekeeper already.
        """
        self.check_server()
        _Gatekeeper(socket.context, authorised=self.authorised)
        socket.curve_server = 1
        socket.curve_publickey = self.server_public
        socket.curve_secretkey = self.server_secret

    def apply_client(self, socket: zmq.Socket[bytes]) -> None:
        """Prepare a socket that will connect; raises `ConfigurationError` without the client's secret key."""
        if not self.client_secret:
            raise ConfigurationError(
                "client.key_secret is missing in the key folder; copy it there to connect"
            )
        socket.curve_serverkey = self.server_public
        socket.curve_publickey = self.client_public
        socket.curve_secretkey = self.client_secret


@dataclass(frozen=True, slots=True, repr=False)
class Password:
    """A secret that a client must know; nothing is encrypted, so it is only for sockets on this machine.

    It costs nothing per message, while encryption reduces the frame rate over tcp to a quarter.
    """

    secret: str

    @classmethod
    def fresh(cls) -> Password:
        """A new random one."""
        return cls(secrets.token_urlsafe(32))

    def apply_server(self, socket: zmq.Socket[bytes]) -> None:
        """Prepare a socket that will bind; raises `LinkError` if its context has a gatekeeper already."""
        _Gatekeeper(socket.context, password=self.secret)
        socket.plain_server = 1

    def apply_client(self, socket: zmq.Socket[bytes]) -> None:
        """Prepare a socket that will connect."""
        socket.plain_username = USER
        socket.plain_password = self.secret.encode()


class _Gatekeeper:
    """Decides for libzmq whether a client may connect, in a thread that ends with the context."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        *,
        authorised: frozenset[bytes] = frozenset(),
        password: str = "",
    ) -> None:
        self._authorised = authorised
        self._authenticator = zmq.auth.Authenticator(context)
        try:
            self._authenticator.start()
        except zmq.ZMQError as error:
            self._authenticator.stop()
            raise LinkError(
                f"this ZeroMQ context already has a server with keys: {error.strerror}; use another context"
            ) from error
        self._authenticator.configure_curve_callback("*", credentials_provider=self)
        if password:
            self._authenticator.configure_plain("*", {USER.decode(): password})
        threading.Thread(target=self._answer, name="zap", daemon=True).start()

    def callback(self, domain: str, key: bytes) -> bool:
        """Whether the client with this public key may connect (called by pyzmq)."""
        return key in self._authorised

    def _answer(self) -> None:
        socket = self._authenticator.zap_socket
        loop = asyncio.new_event_loop()
        try:
            while socket is not None:
                question = socket.recv_multipart()
                try:
                    loop.run_until_complete(self._authenticator.handle_zap_message(question))
                except (
                    ValueError,
                    TypeError,
                    LookupError,
                ):  # not a request of libzmq: it lets nobody in
                    continue
        except zmq.ContextTerminated:
            pass  # the server of this context is closed: no more requests
        finally:
            self._authenticator.stop()
            loop.close()


def new_keys() -> CurveKeys:
    """New keys for servers and clients that never leave memory."""
    server_public, server_secret = zmq.curve_keypair()
    client_public, client_secret = zmq.curve_keypair()
    return CurveKeys(server_public, server_secret, client_public, client_secret, frozenset({client_public}))


def generate_keys(folder: str | Path) -> CurveKeys:
    """Make new keys for one server and one client in a new folder; only the owner can read the secrets.

    Raises `OutputError` if the folder has keys already or cannot be written.
    """
    root = Path(folder)
    if any((root / f"{name}.key_secret").exists() for name in (SERVER, CLIENT)):
        raise OutputError(f"{root} already contains keys; choose another folder or delete them")
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        (root / AUTHORISED).mkdir(exist_ok=True)
        for name in (SERVER, CLIENT):
            (root / f"{name}.key_secret").touch(mode=0o600)
            zmq.auth.create_certificates(root, name)
        shutil.copyfile(root / f"{CLIENT}.key", root / AUTHORISED / f"{CLIENT}.key")
    except OSError as error:
        raise OutputError(f"keys cannot be written to {root}: {error.strerror}") from error
    return load_keys(root)


def load_keys(folder: str | Path) -> CurveKeys:
    """Read a key folder; raises `ConfigurationError` without the server's public key or for a bad file."""
    root = Path(folder)
    server_public, server_secret = _read_pair(root, SERVER)
    client_public, client_secret = _read_pair(root, CLIENT)
    if not server_public:
        raise ConfigurationError(f"there is no server.key in {root}; make keys with `{HOW_TO_MAKE_KEYS}`")
    guests = sorted((root / AUTHORISED).glob("*.key"))
    return CurveKeys(
        server_public,
        server_secret,
        client_public,
        client_secret,
        frozenset(_read(path)[0] for path in guests),
    )


def _read_pair(root: Path, name: str) -> tuple[bytes, bytes]:
    secret = root / f"{name}.key_secret"
    if secret.exists():
        return _read(secret)
    public = root / f"{name}.key"
    return _read(public) if public.exists() else (b"", b"")


def _read(path: Path) -> tuple[bytes, bytes]:
    try:
        public, secret = zmq.auth.load_certificate(path)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} is not a key file: {error}; make new keys") from error
    if len(public) != 40 or len(secret or b"") not in {0, 40}:
        raise ConfigurationError(f"{path} is not a key file: a key has 40 characters; make new keys")
    return public, secret or b""
