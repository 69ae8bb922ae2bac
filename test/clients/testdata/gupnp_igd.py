# Maps a port with libgupnp-igd, waits for the end of standard input, unmaps.
import sys
import threading

import gi

gi.require_version("GUPnPIgd", "1.0")
from gi.repository import GLib, GUPnPIgd

loop = GLib.MainLoop()
igd = GUPnPIgd.SimpleIgd()
mapped = 0


def say(text):
    print(text, flush=True)


def was_mapped(*_):
    global mapped
    mapped += 1
    say("mapped")


igd.connect("mapped-external-port", was_mapped)
igd.connect("error-mapping-port", lambda *a: say("error " + str(a)))
igd.add_port("UDP", 6200, sys.argv[1], 6200, 600, "gupnp-igd")


# The library finds the gateway twice, as version 1 and as version 2, and asks each
# for the port. A request that is under way when the port is removed it forgets,
# though the gateway will grant it: so the port stays until both are answered. It
# swallows the news when it learns the external address last; hence the limit.
def unmap(patience=30):
    if mapped < 2 and patience > 0:
        GLib.timeout_add(100, unmap, patience - 1)
        return GLib.SOURCE_REMOVE
    igd.remove_port("UDP", 6200)
    GLib.timeout_add(2000, loop.quit)  # the library tells nobody when it is done
    return GLib.SOURCE_REMOVE


def wait():
    sys.stdin.read()
    GLib.idle_add(unmap)


threading.Thread(target=wait, daemon=True).start()
loop.run()
