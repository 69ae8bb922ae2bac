package config

import "github.com/BurntSushi/toml"

// SocketIn returns the control.socket of a file that is not valid otherwise, as far as it
// can be read; else the default. Who asks a running daemon has no use for the rest.
func SocketIn(path string) Socket {
	socket := Default().Control.Socket
	data, _, err := ReadFile(path, MaxFileSize)
	if err != nil {
		return socket
	}
	var file struct {
		Control struct{ Socket Socket }
	}
	if _, err := toml.Decode(string(data), &file); err != nil || file.Control.Socket == "" {
		return socket
	}
	return file.Control.Socket
}
