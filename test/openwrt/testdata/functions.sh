# Has what the scripts of packages take of OpenWrt's functions.sh, as it was before 24.10: the
# package is known by the argument.
add_group_and_user() {
	local pkgname="$1"
	grep -q "^$pkgname:" /etc/passwd || echo "$pkgname:x:32768:32768:$pkgname:/var/run/$pkgname:/bin/false" >>/etc/passwd
}
default_postinst() {
	local script pkgname
	pkgname=$(basename "${1%.*}")
	[ "$pkgname" = portcullis ] || return 1
	for script in portcullis miniupnpd; do
		[ "$PKG_UPGRADE" = 1 ] || "/etc/init.d/$script" enable
		"/etc/init.d/$script" start
	done
}
default_prerm() {
	local script pkgname
	pkgname=$(basename "${1%.*}")
	[ "$pkgname" = portcullis ] || return 1
	for script in portcullis miniupnpd; do
		[ "$PKG_UPGRADE" = 1 ] || "/etc/init.d/$script" disable
		"/etc/init.d/$script" stop
	done
}
