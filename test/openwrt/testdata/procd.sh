# Has the functions of OpenWrt's procd.sh, which say what procd is to do. They are written down,
# words and calls behind a separator of ASCII's, and the program "procd" makes of them what is
# sent to ubus.
said() {
	printf '%s\037' "$@" >>/tmp/procd.said
	printf '\036' >>/tmp/procd.said
}
procd_open_service() {
	rm -f /tmp/procd.said
	said open_service "$@"
}
procd_close_service() {
	service_triggers
	procd
}
procd_open_instance() { said open_instance "$@"; }
procd_close_instance() { said close_instance; }
procd_set_param() { said set_param "$@"; }
procd_add_jail() { said add_jail "$@"; }
procd_add_jail_mount() { said add_jail_mount "$@"; }
procd_add_jail_mount_rw() { said add_jail_mount_rw "$@"; }
procd_add_reload_trigger() { said add_reload_trigger "$@"; }
procd_add_raw_trigger() { said add_raw_trigger "$@"; }
procd_send_signal() { ubus call service signal "{\"name\":\"$1\",\"signal\":$(kill -l "$3")}"; }
procd_kill() { ubus call service delete "{\"name\":\"$1\"}"; }
