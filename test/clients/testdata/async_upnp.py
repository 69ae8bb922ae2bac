# What Home Assistant does with async_upnp_client: polls the gateway's counters with
# several requests at once, subscribes, maps a port for anybody, which it can only
# say as 0.0.0.0; waits for the end of standard input, unmaps.
import asyncio
import ipaddress
import sys
from datetime import timedelta

import aiohttp.http_parser


class HeadersParser(aiohttp.http_parser.HeadersParser):
    """Of some versions of aiohttp it begins with the line after the first, of
    others with the first: the library expects the former."""

    def parse_headers(self, lines):
        try:
            return super().parse_headers(lines)
        except aiohttp.http_exceptions.InvalidHeader:
            return super().parse_headers(lines[1:])


import async_upnp_client.ssdp

async_upnp_client.ssdp.HeadersParser = HeadersParser

from async_upnp_client.aiohttp import AiohttpNotifyServer, AiohttpRequester
from async_upnp_client.client_factory import UpnpFactory
from async_upnp_client.profiles.igd import IgdDevice

ANYBODY = ipaddress.IPv4Address("0.0.0.0")
own = sys.argv[1]


def say(*text):
    print(*text, flush=True)


async def find(requester):
    found = await IgdDevice.async_search(source=(own, 0), timeout=2)
    location = next(d["location"] for d in found)
    return await UpnpFactory(requester).async_create_device(location)


async def poll(igd):
    for _ in range(10):
        state = await igd.async_get_traffic_and_status_data(force_poll=True)
        lost = [str(v) for v in state if isinstance(v, BaseException)]
        if lost or state.connection_status != "Connected":
            raise RuntimeError(f"poll: {lost} {state.connection_status}")
    addresses = await asyncio.gather(*[igd.async_get_external_ip_address() for _ in range(12)])
    if len(set(addresses)) != 1:
        raise RuntimeError(f"twelve at once: {addresses}")
    say("external", addresses[0])


async def main():
    requester = AiohttpRequester(timeout=20)
    server = AiohttpNotifyServer(requester, source=(own, 0))
    await server.async_start_server()
    igd = IgdDevice(await find(requester), server.event_handler)
    await igd.async_subscribe_services()
    await poll(igd)
    await igd.async_add_port_mapping(ANYBODY, 6270, "UDP", 6271, ipaddress.IPv4Address(own), True, "hass", timedelta(seconds=600))
    entry = await igd.async_get_specific_port_mapping_entry(ANYBODY, 6270, "UDP")
    if entry.internal_port != 6271 or str(entry.internal_client) != own:
        raise RuntimeError(f"entry: {entry}")
    say("mapped")
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await igd.async_delete_port_mapping(ANYBODY, 6270, "UDP")
    await igd.async_unsubscribe_services()
    await server.async_stop_server()


asyncio.run(main())
