"""The secrets of one run, drawn at its start: who holds them may command it, report to it and listen to it.

The stages get them with their plan, over the pipe that they are born with; viewers from the run's card, which
only the user can read. What carries orders and reports is encrypted (`curve`). Camera images on this machine, over
tcp or to viewers, are not, but nobody gets in without the `password`. An address that the user names for viewers
(`session.monitor` with a port) is open to the programs of this machine, or to the holders of the keys in
`session.keys`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from stream.security import CurveKeys, Password, load_keys, new_keys
from stream.sockets import LinkAddress, Security


class Pass(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a viewer shows at a socket's door, as it stands on a card; all empty where the door is open."""

    server: str = ""
    public: str = ""
    secret: str = ""
    password: str = ""

    def security(self) -> Security | None:
        """What a connecting socket is given."""
        if self.password:
            return Password(self.password)
        if self.server:
            return CurveKeys(self.server.encode(), b"", self.public.encode(), self.secret.encode())
        return None


@dataclass(frozen=True, slots=True, repr=False)
class RunKeys:
    """`curve` and `password` of a run; `public` are the keys of `session.keys`, which viewers elsewhere hold."""

    curve: CurveKeys
    password: Password
    public: CurveKeys | None = None

    @classmethod
    def fresh(cls, folder: Path | None = None) -> RunKeys:
        """Draw new secrets; raises `ConfigurationError` if `folder` holds no keys of a server."""
        public = None if folder is None else load_keys(folder)
        if public is not None:
            public.check_server()
        return cls(new_keys(), Password.fresh(), public)

    def link(self, address: str, sender: str) -> Security | None:
        """For the link that the stage `sender` opens: frames, which come from `acquire`, are not encrypted.

        A detector that is started again opens its address again; the keys tell it from a program that was faster.
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
        """For those on this machine who listen to it."""
        if self.public is not None:
            return self._curve_pass(self.public.server_public)
        return self.viewer_of_bulk if LinkAddress.parse(setting).port == 0 else Pass()

    @property
    def viewer_of_bulk(self) -> Pass:
        """For those who listen to what needs the password."""
        return Pass(password=self.password.secret)

    @property
    def commander(self) -> Pass:
        """For those who command."""
        return self._curve_pass(self.curve.server_public)

    def _curve_pass(self, server: bytes) -> Pass:
        return Pass(server.decode(), self.curve.client_public.decode(), self.curve.client_secret.decode())
