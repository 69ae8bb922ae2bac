package iptables_test

import (
	"testing"

	"portcullis/firewall/homenet"
)

func TestMain(m *testing.M) { homenet.Main(m) }
