package web

import (
	"context"
	_ "embed" // the page is a part of the program

	"portcullis/internal/http1"
)

var (
	//go:embed static/index.html
	indexHTML []byte
	//go:embed static/page.js
	pageJS []byte
	//go:embed static/page.css
	pageCSS []byte
	//go:embed static/icon.svg
	iconSVG []byte
)

// file is one that a browser loads.
type file struct {
	kind string
	body []byte
}

// files are those that there are, by their paths.
var files = map[string]file{
	"/":         {"text/html; charset=utf-8", indexHTML},
	"/page.js":  {"text/javascript; charset=utf-8", pageJS},
	"/page.css": {"text/css; charset=utf-8", pageCSS},
	"/icon.svg": {"image/svg+xml", iconSVG},
}

func (f file) serve(context.Context, *http1.Request) *http1.Response {
	return &http1.Response{Status: http1.OK, Header: []http1.Field{{Name: "Content-Type", Value: f.kind}}, Body: f.body}
}
