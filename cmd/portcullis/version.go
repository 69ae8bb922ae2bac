package main

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"portcullis/internal/cmdline"
	"portcullis/internal/json"
	"portcullis/internal/logging"
)

// version is set by the linker for a release.
var version = "0.2.0-dev"

type build struct {
	Version  string `json:"version"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
	Revision string `json:"revision"` // "" when built outside a checkout
}

func thisBuild() build {
	b := build{Version: version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				b.Revision = s.Value
			}
		}
	}
	return b
}

func runVersion(_ context.Context, call *cmdline.Call) error {
	b := thisBuild()
	if call.Has("json") {
		return printJSON(call.Out, b)
	}
	_, err := fmt.Fprintf(call.Out, "portcullis %s, %s, %s\n", b.Version, b.Go, b.Platform)
	return err
}

func printJSON(w io.Writer, v any) error {
	text, err := json.MarshalIndent(v)
	if err != nil {
		return err
	}
	return writeJSON(w, text)
}

// writeJSON writes a line, or several, of which a terminal obeys none.
func writeJSON(w io.Writer, text []byte) error {
	_, err := w.Write(append(logging.EscapeJSON(text), '\n'))
	return err
}
