"""A plain streaming reverse proxy with aiohttp, as people write it: `aiohttp_proxy.py PORT UPSTREAM CA_FILE`."""

from __future__ import annotations

import logging
import ssl
import sys
from collections.abc import AsyncIterator

import aiohttp
from aiohttp import web

_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host", "authorization"}


def main() -> None:
    """Serve."""
    port, upstream, ca = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    logging.disable()  # clients that leave at the end of a run are no news
    context = ssl.create_default_context(cafile=ca) if upstream.startswith("https") else None

    async def session(app: web.Application) -> AsyncIterator[None]:
        connector = aiohttp.TCPConnector(limit=0, ssl=context) if context else aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as made:
            app["session"] = made
            yield

    async def handle(request: web.Request) -> web.StreamResponse:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP}
        headers["Authorization"] = "Bearer real"
        body = request.content if request.can_read_body else None
        async with request.app["session"].request(
            request.method, upstream + request.raw_path, headers=headers, data=body, allow_redirects=False
        ) as answer:
            reply = web.StreamResponse(status=answer.status)
            for name, value in answer.headers.items():
                if name.lower() not in _HOP or name.lower() == "content-length":
                    reply.headers.add(name, value)
            await reply.prepare(request)
            async for data in answer.content.iter_any():
                await reply.write(data)
            await reply.write_eof()
            return reply

    app = web.Application(client_max_size=1 << 30)
    app.cleanup_ctx.append(session)
    app.router.add_route("*", "/{path:.*}", handle)
    web.run_app(app, host="127.0.0.1", port=port, print=None, access_log=None)


if __name__ == "__main__":
    main()
