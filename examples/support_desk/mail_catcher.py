"""A mail server that delivers nothing: it keeps what it is sent. `python mail_catcher.py` prints what comes."""

from __future__ import annotations

import asyncio
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default

PORT = 2525


class MailCatcher:
    """Listens on this machine; `mails` holds what has come."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.port = 0

    async def start(self, port: int = 0) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port, limit=1 << 20)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail catcher\r\n")
        while line := await reader.readline():
            command = line.strip().upper()
            if command == b"DATA":
                writer.write(b"354 go on\r\n")
                self.mails.append(_mail(await reader.readuntil(b"\r\n.\r\n")))
                writer.write(b"250 kept\r\n")
            elif command == b"QUIT":
                writer.write(b"221 bye\r\n")
                break
            else:
                writer.write(b"250 mail catcher\r\n")
        writer.close()


def _mail(data: bytes) -> EmailMessage:
    mail = message_from_bytes(data.removesuffix(b"\r\n.\r\n").replace(b"\r\n..", b"\r\n."), policy=default)
    assert isinstance(mail, EmailMessage)
    return mail


async def main() -> None:
    catcher = MailCatcher()
    await catcher.start(PORT)
    print(f"mail is caught on port {catcher.port}; Ctrl-C stops")
    shown = 0
    while True:
        await asyncio.sleep(0.2)
        for mail in catcher.mails[shown:]:
            print(f"to {mail['To']}: {mail.get_content().strip()}")
        shown = len(catcher.mails)


if __name__ == "__main__":
    asyncio.run(main())
