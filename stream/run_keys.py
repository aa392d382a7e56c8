"""The secrets of one run, created at its start, without which nobody can command it or listen to it.

The pipeline stages get them over the pipe to their process; viewers read them from the run's card, which only the
user can read. Commands and status messages are encrypted (`curve`). Camera images on this machine, over tcp or to
viewers, are not encrypted, but require the `password`. An address that the user sets for viewers (`session.monitor`
with a port) is open to all programs of this machine, or to the holders of the keys in `session.keys`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from stream.security import CurveKeys, Password, load_keys, new_keys
from stream.sockets import LinkAddress, Security


class Pass(msgspec.Struct, frozen=True, omit_defaults=True):
    """The credentials with which a viewer connects to a socket, as written on a card; empty if it needs none."""

    server: str = ""
    public: str = ""
    secret: str = ""
    password: str = ""

    def security(self) -> Security | None:
        """The security object for a connecting socket."""
        if self.password:
            return Password(self.password)
        if self.server:
            return CurveKeys(self.server.encode(), b"", self.public.encode(), self.secret.encode())
        return None


@dataclass(frozen=True, slots=True, repr=False)
class RunKeys:
    """`curve` and `password` of a run; `public` are the keys of `session.keys`, for viewers on other machines."""

    curve: CurveKeys
    password: Password
    public: CurveKeys | None = None

    @classmethod
    def fresh(cls, folder: Path | None = None) -> RunKeys:
        """Create new secrets; raises `ConfigurationError` if `folder` has no keys of a server."""
        public = None if folder is None else load_keys(folder)
        if public is not None:
            public.check_server()
        return cls(new_keys(), Password.fresh(), public)

    def link(self, address: str, sender: str) -> Security | None:
        """For the message link of the pipeline stage `sender`: frames (from `acquire`) are not encrypted.

        A detector that is started again binds its address again; the keys distinguish it from a faster program.
        """
        if LinkAddress.parse(address).scheme == "inproc":
            return None
        return self.password if sender == "acquire" else self.curve

    def monitor(self, setting: str) -> Security | None:
        """For the detector's monitor, which binds as `session.monitor` says."""
        if self.public is not None:
            return replace(self.public, authorised=self.public.authorised | self.curve.authorised)
        return self.password if LinkAddress.parse(setting).port == 0 else None

    def viewer_of_monitor(self, setting: str) -> Pass:
        """For viewers on this machine."""
        if self.public is not None:
            return self._curve_pass(self.public.server_public)
        return self.viewer_of_bulk if LinkAddress.parse(setting).port == 0 else Pass()

    @property
    def viewer_of_bulk(self) -> Pass:
        """For viewers of a socket that requires the password."""
        return Pass(password=self.password.secret)

    @property
    def commander(self) -> Pass:
        """For clients that send commands."""
        return self._curve_pass(self.curve.server_public)

    def _curve_pass(self, server: bytes) -> Pass:
        return Pass(server.decode(), self.curve.client_public.decode(), self.curve.client_secret.decode())
