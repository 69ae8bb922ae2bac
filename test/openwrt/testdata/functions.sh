# Has what the scripts of packages take of OpenWrt's functions.sh.
add_group_and_user() {
	grep -q "^$pkgname:" /etc/passwd || echo "$pkgname:x:32768:32768:$pkgname:/var/run/$pkgname:/bin/false" >>/etc/passwd
}
default_postinst() {
	local script
	for script in portcullis miniupnpd; do
		[ "$PKG_UPGRADE" = 1 ] || "/etc/init.d/$script" enable
		"/etc/init.d/$script" start
	done
}
default_prerm() {
	local script
	for script in portcullis miniupnpd; do
		[ "$PKG_UPGRADE" = 1 ] || "/etc/init.d/$script" disable
		"/etc/init.d/$script" stop
	done
}
