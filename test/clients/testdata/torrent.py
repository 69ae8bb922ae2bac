# Maps its ports with libtorrent (UPnP off, NAT-PMP and PCP on), waits for the end
# of standard input, unmaps.
import sys
import threading

import libtorrent

kinds = libtorrent.alert.category_t
session = libtorrent.session({
    "listen_interfaces": sys.argv[1] + ":6881",
    "enable_upnp": False,
    "enable_natpmp": True,
    "enable_dht": False,
    "enable_lsd": False,
    "alert_mask": kinds.port_mapping_notification | kinds.port_mapping_log_notification,
})
ended = threading.Event()


def wait():
    sys.stdin.read()
    ended.set()


threading.Thread(target=wait, daemon=True).start()
while not ended.is_set():
    session.wait_for_alert(100)
    for alert in session.pop_alerts():
        print(alert.message(), flush=True)
del session  # unmaps, and waits for no reply
