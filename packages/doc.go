// Packages builds the program for every processor that we ship, and makes of it the packages
// of Debian (.deb) and OpenWrt (.apk, .ipk), and a static tarball.
//
//	make packages               # all of them, into dist/, with SHA256SUMS and an SBOM
//	make packages ARCHS=amd64   # one processor
//
// What a package holds is what `make install` installs, and `make install-openwrt` for routers,
// so that there is one list: it is installed into a directory, for each prefix once.
// The table of targets.go has the processors, and what distributions call them. The files
// carry the time of SOURCE_DATE_EPOCH, which the Makefile takes from the last commit: two
// builds of one commit have the same octets.
//
// It is a module of its own, of which nothing comes into the program. nfpm is v2.45.0: later
// versions need modules for other formats that cannot be had everywhere.
package main
