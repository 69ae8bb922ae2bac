# Maps a port with libgupnp-igd, waits for the end of standard input, unmaps.
import sys
import threading

import gi

gi.require_version("GUPnPIgd", "1.0")
from gi.repository import GLib, GUPnPIgd

loop = GLib.MainLoop()
igd = GUPnPIgd.SimpleIgd()


def say(text):
    print(text, flush=True)


igd.connect("mapped-external-port", lambda *a: say("mapped"))
igd.connect("error-mapping-port", lambda *a: say("error " + str(a)))
igd.add_port("UDP", 6200, sys.argv[1], 6200, 600, "gupnp-igd")


def unmap():
    igd.remove_port("UDP", 6200)
    GLib.timeout_add(2000, loop.quit)  # the library tells nobody when it is done


def wait():
    sys.stdin.read()
    GLib.idle_add(unmap)


threading.Thread(target=wait, daemon=True).start()
loop.run()
